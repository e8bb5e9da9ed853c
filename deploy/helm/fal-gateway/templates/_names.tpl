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

{{/*
What the names of the gateway's pods match, and no other Deployment's: the Deployment's name, a hash of up to 10
characters, and 5 of chance, out of an alphabet without vowels. Kubernetes cuts all before the last 5 at 58 characters.
*/}}
{{- define "fal-gateway.podNames" -}}
{{- $name := include "fal-gateway.fullname" . }}
{{- $one := "[bcdfghjklmnpqrstvwxz24-9]" }}
{{- $room := sub 57 (len $name) | int }}
{{- if gt $room 10 }}{{ printf "%s-%s{1,10}-%s{5}" $name $one $one }}
{{- else if gt $room 1 }}{{ printf "%s-(%s{1,%d}-%s{5}|%s{%d})" $name $one (sub $room 1) $one $one (add $room 5) }}
{{- else if ge $room 0 }}{{ printf "%s-%s{%d}" $name $one (add $room 5) }}
{{- else }}{{ printf "%s%s{5}" (trunc 58 $name) $one }}
{{- end }}
{{- end }}

{{/*
A name for an object in another namespace, where releases of other namespaces have theirs: with the release's namespace
before it. Takes (list $ namespace name).
*/}}
{{- define "fal-gateway.namedIn" -}}
{{- $from := (index . 0).Release.Namespace }}
{{- $name := index . 2 }}
{{- if not (has (index . 1) (list "" $from)) }}{{ $name = printf "%s-%s" $from $name }}{{ end }}
{{- if gt (len $name) 63 }}{{ $name = printf "%s-%s" (trunc 54 $name | trimSuffix "-") (sha256sum $name | trunc 8) }}{{ end }}
{{- $name }}
{{- end }}

{{/* What the selectors of a Deployment hold can never be changed: nothing here may depend on a value but the names. */}}
{{- define "fal-gateway.instanceLabels" -}}
app.kubernetes.io/name: {{ include "fal-gateway.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "fal-gateway.selectorLabels" -}}
{{ include "fal-gateway.instanceLabels" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* What pods are labelled with: nothing that changes with the chart alone, or each change of it would start them anew. */}}
{{- define "fal-gateway.podLabels" -}}
{{- $ours := include "fal-gateway.selectorLabels" . | fromYaml }}
{{- $_ := set $ours "app.kubernetes.io/version" .Chart.AppVersion }}
{{- include "fal-gateway.laid" (list .Values.commonLabels .Values.podLabels $ours) }}
{{- end }}

{{- define "fal-gateway.labels" -}}
{{- include "fal-gateway.labelsWith" (list . "" nil) }}
{{- end }}

{{/* An object's labels, each key once: the chart's own, then what is said of the object, then commonLabels. Takes (list $ component labels). */}}
{{- define "fal-gateway.labelsWith" -}}
{{- $root := index . 0 }}
{{- $ours := include "fal-gateway.ownLabels" $root | fromYaml }}
{{- with index . 1 }}{{ $_ := set $ours "app.kubernetes.io/component" . }}{{ end }}
{{- include "fal-gateway.laid" (list $root.Values.commonLabels (index . 2) $ours) }}
{{- end }}

{{/* Mappings laid over each other, the last on top, also where it says "", which `merge` takes for nothing. Takes a list. */}}
{{- define "fal-gateway.laid" -}}
{{- $all := dict }}
{{- range . }}{{ range $key, $value := . }}{{ $_ := set $all $key $value }}{{ end }}{{ end }}
{{- toYaml $all }}
{{- end }}

{{- define "fal-gateway.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "fal-gateway.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What a change of starts the pods anew. */}}
{{- define "fal-gateway.checksums" -}}
{{- if and .Values.rolloutOnPolicyChange (not .Values.existingPolicyConfigMap) }}
checksum/policy: {{ include "fal-gateway.policy" . | sha256sum }}
{{- end }}
{{- with include "fal-gateway.urls" . }}
checksum/urls: {{ sha256sum . }}
{{- end }}
{{- end }}

{{- define "fal-gateway.podAnnotations" -}}
{{- $own := dict "kubectl.kubernetes.io/default-container" "gateway" }}
{{- include "fal-gateway.laid" (list $own .Values.podAnnotations (include "fal-gateway.checksums" . | fromYaml)) }}
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
