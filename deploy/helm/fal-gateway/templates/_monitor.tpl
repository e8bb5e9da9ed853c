{{/*
What a ServiceMonitor and a PodMonitor have in common. Takes (list $ values).
*/}}
{{- define "fal-gateway.monitorMetadata" -}}
{{- $root := index . 0 }}{{ $monitor := index . 1 -}}
name: {{ include "fal-gateway.namedIn" (list $root $monitor.namespace (include "fal-gateway.fullname" $root)) }}
namespace: {{ default $root.Release.Namespace $monitor.namespace }}
labels:
  {{- include "fal-gateway.labelsWith" (list $root "" $monitor.labels) | nindent 2 }}
{{- end }}

{{- define "fal-gateway.monitorEndpoint" -}}
port: ops
path: /metrics
scheme: http
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
