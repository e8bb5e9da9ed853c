{{/*
What follows from the values, each said in one place: "true" or nothing.
*/}}
{{- define "fal-gateway.scaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}true{{ end }}
{{- end }}

{{/* How many replicas there may be at most. */}}
{{- define "fal-gateway.mostReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas | int }}
{{- else if .Values.keda.enabled }}{{ .Values.keda.maxReplicas | int }}
{{- else }}{{ .Values.replicaCount | int }}{{ end }}
{{- end }}

{{/* The value that says so. */}}
{{- define "fal-gateway.mostReplicasName" -}}
{{- if .Values.autoscaling.enabled }}autoscaling.maxReplicas
{{- else if .Values.keda.enabled }}keda.maxReplicas
{{- else }}replicaCount{{ end }}
{{- end }}

{{- define "fal-gateway.redis" -}}
{{- if or .Values.redis.url .Values.redis.existingSecret }}true{{ end }}
{{- end }}

{{/* A URL in a Secret of yours is taken for PostgreSQL: an SQLite file needs no secret. */}}
{{- define "fal-gateway.sqlite" -}}
{{- if not .Values.database.existingSecret }}
{{- if or (not .Values.database.url) (hasPrefix "sqlite" .Values.database.url) }}true{{ end }}
{{- end }}
{{- end }}

{{/* A trial without a policy of one's own has one key, which everybody knows. */}}
{{- define "fal-gateway.trial" -}}
{{- if and .Values.emulator.enabled (not (or .Values.policy .Values.existingPolicyConfigMap)) }}true{{ end }}
{{- end }}

{{/* The policy's text; nothing where there is none. */}}
{{- define "fal-gateway.policy" -}}
{{- if and .Values.policy (kindIs "string" .Values.policy) }}
{{- .Values.policy }}
{{- else if .Values.policy }}
{{- toYaml .Values.policy }}
{{- else if include "fal-gateway.trial" . }}
{{- $key := dict "id" "trial" "team" "trial" "digests" (list (printf "sha256:%s" (sha256sum .Values.emulator.gatewayKey))) }}
{{- toYaml (dict "teams" (list (dict "id" "trial")) "keys" (list $key)) }}
{{- end }}
{{- end }}

{{/* The ConfigMap that holds the policy; nothing where there is none. */}}
{{- define "fal-gateway.policyConfigMap" -}}
{{- if .Values.existingPolicyConfigMap }}
{{- .Values.existingPolicyConfigMap }}
{{- else if include "fal-gateway.policy" . | trim }}
{{- include "fal-gateway.named" (list . "policy") }}
{{- end }}
{{- end }}

{{/* The secret connections that were given as plain values, as a Secret's data in the making. */}}
{{- define "fal-gateway.urls" -}}
{{- $urls := dict }}
{{- if and .Values.redis.url (not .Values.redis.existingSecret) }}{{ $_ := set $urls "redis-url" .Values.redis.url }}{{ end }}
{{- if and .Values.database.url (not .Values.database.existingSecret) }}{{ $_ := set $urls "database-url" .Values.database.url }}{{ end }}
{{- if $urls }}{{ toYaml $urls }}{{ end }}
{{- end }}

{{/* The port that a URL names, else what stands for it. Takes (dict "url" … "default" …). */}}
{{- define "fal-gateway.portOf" -}}
{{- $shape := `^[a-z]+://(?:[^@/]*@)?(?:\[[^\]]+\]|[^:/?]+):([0-9]+)(?:[/?].*)?$` }}
{{- if regexMatch $shape .url }}{{ regexReplaceAll $shape .url "${1}" }}{{ else }}{{ .default | int }}{{ end }}
{{- end }}

{{/* A plain value as text: Helm reads numbers as floats, and would write 1e+09. */}}
{{- define "fal-gateway.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* A text as the inside of a block, without spaces on its empty lines. Takes (list indent text). */}}
{{- define "fal-gateway.block" -}}
{{- regexReplaceAll "(?m)^ +$" (index . 1 | trimAll "\n" | nindent (index . 0)) "" }}
{{- end }}
