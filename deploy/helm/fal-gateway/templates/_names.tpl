{{/*
Names and labels. A name is at most 63 characters, whatever the release is called: a Service takes no more.
*/}}
{{- define "fal-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "fal-gateway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "fal-gateway.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "fal-gateway.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The full name with an ending of its own that no truncation takes away. Takes (list $ ending). */}}
{{- define "fal-gateway.named" -}}
{{- $ending := index . 1 }}
{{- $room := sub 62 (len $ending) | int }}
{{- printf "%s-%s" (include "fal-gateway.fullname" (index . 0) | trunc $room | trimSuffix "-") $ending }}
{{- end }}

{{/* What the selectors of a Deployment hold can never be changed: nothing here may depend on a value but the names. */}}
{{- define "fal-gateway.instanceLabels" -}}
app.kubernetes.io/name: {{ include "fal-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fal-gateway.selectorLabels" -}}
{{ include "fal-gateway.instanceLabels" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* What pods are labelled with: nothing that changes with the chart alone, or each change of it would start them anew. */}}
{{- define "fal-gateway.podLabels" -}}
{{ include "fal-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with merge (deepCopy .Values.podLabels) .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "fal-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "fal-gateway.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "fal-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "fal-gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "fal-gateway.image" -}}
{{- $place := .Values.image.repository }}
{{- with .Values.image.registry }}
{{- $place = printf "%s/%s" (trimSuffix "/" .) $place }}
{{- end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $place .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $place (default .Chart.AppVersion .Values.image.tag | toString) }}
{{- end }}
{{- end }}
