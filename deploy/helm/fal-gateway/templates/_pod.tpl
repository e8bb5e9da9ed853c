{{/*
The gateway's pod, from its scheduling to its volumes.
*/}}
{{- define "fal-gateway.podSpec" -}}
serviceAccountName: {{ include "fal-gateway.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | int }}
{{- include "fal-gateway.scheduling" . }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- $sidecars := list }}
{{- if .Values.emulator.enabled }}
{{- $sidecars = list (include "fal-gateway.emulator" . | fromYaml) }}
{{- end }}
{{- with concat (default list .Values.initContainers) $sidecars }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: gateway
    {{- include "fal-gateway.container" . | nindent 4 }}
  {{- with .Values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  {{- include "fal-gateway.volumes" . | nindent 2 }}
{{- end }}

{{- define "fal-gateway.scheduling" }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $name := list "priorityClassName" "runtimeClassName" "schedulerName" }}
{{- with index $.Values $name }}
{{ $name }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- range $name := list "nodeSelector" "affinity" "tolerations" "dnsConfig" "hostAliases" }}
{{- with index $.Values $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $ours := dict "labelSelector" (dict "matchLabels" (include "fal-gateway.selectorLabels" $ | fromYaml)) "matchLabelKeys" (list "pod-template-hash") }}
  - {{ toYaml (merge (deepCopy .) $ours) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "fal-gateway.container" -}}
image: {{ include "fal-gateway.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [tini, --, fal-gateway]
args: [serve]
# A relative path of the ledger's, and the journals that wait for PostgreSQL, lie in the working directory.
workingDir: /var/lib/fal-gateway
env:
  {{- include "fal-gateway.env" . | trim | nindent 2 }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- $settings := include "fal-gateway.settings" . | fromYaml }}
  - name: http
    containerPort: {{ $settings.FALGW_PORT }}
    protocol: TCP
  - name: ops
    containerPort: {{ $settings.FALGW_OPS_PORT }}
    protocol: TCP
startupProbe:
  httpGet: {path: /livez, port: ops}
  {{- with .Values.startupProbe }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
readinessProbe:
  httpGet: {path: /readyz, port: ops}
  {{- with .Values.readinessProbe }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
# Whether the process answers, and nothing else: neither fal nor load may have a pod killed that has calls under way.
livenessProbe:
  httpGet: {path: /livez, port: ops}
  {{- with .Values.livenessProbe }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if .Values.preStopSleepSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSleepSeconds | int }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: state
    mountPath: /var/lib/fal-gateway
  - name: tmp
    mountPath: /tmp
  {{- if include "fal-gateway.policyConfigMap" . }}
  # The whole folder: Kubernetes never changes a file that is mounted by subPath.
  - name: policy
    mountPath: /etc/fal-gateway/policy
    readOnly: true
  {{- end }}
  {{- if and .Values.existingSecret .Values.secretKeys.asFile }}
  - name: credential
    mountPath: /etc/fal-gateway/credential
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* A sidecar of Kubernetes's own kind: it is there before the gateway, and until the gateway has drained. */}}
{{- define "fal-gateway.emulator" -}}
name: emulator
image: {{ include "fal-gateway.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always
command: [tini, --, fal-gateway]
args: [emulator, --host, 127.0.0.1, --port, {{ .Values.emulator.port | int | quote }}]
workingDir: /tmp
resources:
  {{- toYaml .Values.emulator.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- end }}

{{- define "fal-gateway.volumes" -}}
- name: state
  {{- if .Values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ default (include "fal-gateway.fullname" .) .Values.persistence.existingClaim }}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: tmp
  emptyDir: {}
{{- with include "fal-gateway.policyConfigMap" . }}
- name: policy
  configMap:
    name: {{ . }}
    {{- if $.Values.existingPolicyConfigMap }}
    items:
      - key: {{ $.Values.existingPolicyKey }}
        path: policy.yaml
    {{- end }}
{{- end }}
{{- if and .Values.existingSecret .Values.secretKeys.asFile }}
- name: credential
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .Values.secretKeys.falKey }}
        path: fal-key
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
