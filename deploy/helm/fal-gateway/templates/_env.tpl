{{/*
The gateway's environment, as a list. Every name is a setting of the gateway; a setting that is left empty is left out.
*/}}
{{- define "fal-gateway.env" -}}
{{- include "fal-gateway.credential" . }}
{{- if .Values.emulator.enabled }}
- name: FALGW_ORIGIN_OVERRIDES
  {{- $places := list }}
  {{- range list "fal.run" "queue.fal.run" "rest.fal.ai" "api.fal.ai" }}
  {{- $places = append $places (printf "%s=http://127.0.0.1:%d" . (int $.Values.emulator.port)) }}
  {{- end }}
  value: {{ join "," $places | quote }}
{{- end }}
{{- if include "fal-gateway.policyConfigMap" . }}
- name: FALGW_POLICY
  value: /etc/fal-gateway/policy/policy.yaml
{{- end }}
{{- if include "fal-gateway.redis" . }}
- name: FALGW_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ default (include "fal-gateway.named" (list . "urls")) .Values.redis.existingSecret }}
      key: {{ ternary .Values.redis.existingSecretKey "redis-url" (not (empty .Values.redis.existingSecret)) }}
{{- end }}
- name: FALGW_DATABASE_URL
{{- if or .Values.database.url .Values.database.existingSecret }}
  valueFrom:
    secretKeyRef:
      name: {{ default (include "fal-gateway.named" (list . "urls")) .Values.database.existingSecret }}
      key: {{ ternary .Values.database.existingSecretKey "database-url" (not (empty .Values.database.existingSecret)) }}
{{- else }}
  value: sqlite:////var/lib/fal-gateway/fal-gateway.db
{{- end }}
{{- range $name, $text := include "fal-gateway.settings" . | fromYaml }}
- name: {{ $name }}
  value: {{ $text | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The settings that are set, as texts. Listeners always are: a pod's must be open to others, and its ports be known.
*/}}
{{- define "fal-gateway.settings" -}}
{{- $texts := dict "FALGW_HOST" "0.0.0.0" "FALGW_PORT" "8080" "FALGW_OPS_HOST" "0.0.0.0" "FALGW_OPS_PORT" "9090" }}
{{- range $name, $value := .Values.settings }}
{{- $text := include "fal-gateway.text" $value }}
{{- if not (has $text (list "" "null")) }}{{ $_ := set $texts $name $text }}{{ end }}
{{- end }}
{{- toYaml $texts }}
{{- end }}

{{/* The fal credential, in one of the three ways that the gateway knows. */}}
{{- define "fal-gateway.credential" -}}
{{- if .Values.emulator.enabled }}
- name: FAL_KEY
  value: emulator:takes-any-key
{{- else if .Values.existingSecret }}
{{- if .Values.secretKeys.falKeyId }}
{{- include "fal-gateway.secretEnv" (list . "FAL_KEY_ID" .Values.secretKeys.falKeyId) }}
{{- include "fal-gateway.secretEnv" (list . "FAL_KEY_SECRET" .Values.secretKeys.falKeySecret) }}
{{- else if .Values.secretKeys.asFile }}
- name: FAL_KEY_FILE
  value: /etc/fal-gateway/credential/fal-key
{{- else }}
{{- include "fal-gateway.secretEnv" (list . "FAL_KEY" .Values.secretKeys.falKey) }}
{{- end }}
{{- with .Values.secretKeys.falAdminKey }}
{{- include "fal-gateway.secretEnv" (list $ "FAL_ADMIN_KEY" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fal-gateway.secretEnv" }}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ (index . 0).Values.existingSecret }}
      key: {{ index . 2 }}
{{- end }}
