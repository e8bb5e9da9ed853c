{{/*
Guards of what Kubernetes would refuse, or take and do otherwise; _guards.tpl asks them.
*/}}
{{- define "fal-gateway.guards.names" -}}
{{- $name := include "fal-gateway.fullname" . }}
{{- if not (regexMatch `^[a-z]([a-z0-9-]*[a-z0-9])?$` $name) }}
Release.Name is {{ .Release.Name }}, and a Service cannot be called {{ $name }}: set fullnameOverride to small letters, digits and hyphens, a letter first.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.labels" -}}
{{- $ours := append (include "fal-gateway.ownLabels" . | fromYaml | keys) "app.kubernetes.io/component" }}
{{- $places := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "serviceAccount.labels" .Values.serviceAccount.labels }}
{{- $_ := set $places "service.labels" .Values.service.labels }}
{{- $_ := set $places "opsService.labels" .Values.opsService.labels }}
{{- $_ := set $places "httpRoute.labels" .Values.httpRoute.labels }}
{{- $_ := set $places "serviceMonitor.labels" .Values.serviceMonitor.labels }}
{{- $_ := set $places "podMonitor.labels" .Values.podMonitor.labels }}
{{- $_ := set $places "prometheusRule.labels" .Values.prometheusRule.labels }}
{{- $_ := set $places "dashboards.labels" .Values.dashboards.labels }}
{{- range $place, $labels := $places }}
{{- range $key, $_ := $labels }}
{{- if has $key $ours }}
{{ $place }} holds {{ $key }}, which is the chart's own: selectors and helm find objects by it.
{{- end }}
{{- end }}
{{- end }}
{{- range $key, $_ := include "fal-gateway.checksums" . | fromYaml }}
{{- if hasKey (default dict $.Values.podAnnotations) $key }}
podAnnotations holds {{ $key }}, which is the chart's own: by it a change starts the pods anew.
{{- end }}
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.ports" -}}
{{- $settings := include "fal-gateway.settings" . | fromYaml }}
{{- if eq $settings.FALGW_PORT $settings.FALGW_OPS_PORT }}
settings.FALGW_OPS_PORT is the same as settings.FALGW_PORT: the two listeners need a port each.
{{- end }}
{{- range list "FALGW_PORT" "FALGW_OPS_PORT" }}
{{- if and $.Values.emulator.enabled (eq (get $settings .) ($.Values.emulator.port | int | toString)) }}
emulator.port is the same as settings.{{ . }}: the gateway and the emulator are in one pod, and need a port each.
{{- end }}
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.strategy" -}}
{{- $strategy := default dict .Values.strategy }}
{{- $recreates := eq (default "" $strategy.type) "Recreate" }}
{{- if and .Values.persistence.enabled $strategy (not $recreates) }}
strategy.type is RollingUpdate, and persistence.enabled is true: two pods would write to one volume; leave strategy empty.
{{- end }}
{{- if and $recreates $strategy.rollingUpdate }}
strategy.rollingUpdate does not go with strategy.type Recreate: leave one of them out.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.service" -}}
{{- $service := .Values.service }}
{{- if eq $service.type "ClusterIP" }}
{{- range list "nodePort" "externalTrafficPolicy" }}
{{- if get $service . }}
service.{{ . }} is set, and service.type is ClusterIP: it goes with NodePort and LoadBalancer.
{{- end }}
{{- end }}
{{- end }}
{{- if and $service.loadBalancerClass (ne $service.type "LoadBalancer") }}
service.loadBalancerClass is set, and service.type is {{ $service.type }}: it goes with LoadBalancer.
{{- end }}
{{- end }}
