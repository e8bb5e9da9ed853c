{{/*
What would render, and not work. Every sentence names the value that is wrong, and all of them are said at once.
*/}}
{{- define "fal-gateway.guards" -}}
{{- $faults := list }}
{{- range list "credential" "replicas" "drain" "policy" "exclusive" "image" "routes" "env" }}
{{- $found := include (printf "fal-gateway.guards.%s" .) $ | trim }}
{{- if $found }}{{ $faults = append $faults $found }}{{ end }}
{{- end }}
{{- if $faults }}{{ fail (printf "\n%s" (join "\n" $faults)) }}{{ end }}
{{- end }}

{{- define "fal-gateway.guards.credential" -}}
{{- $brought := false }}
{{- range .Values.extraEnv }}
{{- if has .name (list "FAL_KEY" "FAL_KEY_FILE" "FAL_KEY_ID") }}{{ $brought = true }}{{ end }}
{{- end }}
{{- if and .Values.emulator.enabled (or .Values.existingSecret $brought) }}
emulator.enabled: the emulator shows every credential that reaches it; leave existingSecret empty, and FAL_KEY out of extraEnv.
{{- else if not (or .Values.existingSecret $brought .Values.emulator.enabled) }}
existingSecret is empty: name the Secret that holds the fal credential (kubectl create secret generic fal --from-literal=FAL_KEY=…), or try without an account by emulator.enabled=true.
{{- else if and .Values.existingSecret $brought }}
existingSecret and extraEnv both bring the fal credential: keep one of them.
{{- end }}
{{- if and .Values.existingSecret .Values.secretKeys.falKeyId (not .Values.secretKeys.falKeySecret) }}
secretKeys.falKeyId goes with secretKeys.falKeySecret: name both halves of the credential, or falKey alone.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.replicas" -}}
{{- $most := include "fal-gateway.mostReplicas" . | int }}
{{- $name := include "fal-gateway.mostReplicasName" . }}
{{- if gt $most 1 }}
{{- if not (include "fal-gateway.redis" .) }}
{{ $name }} is {{ $most }}, and there is no Redis: replicas share limits and budgets by it; set redis.url or redis.existingSecret.
{{- end }}
{{- if include "fal-gateway.sqlite" . }}
{{ $name }} is {{ $most }}, and the ledger is an SQLite file, which one replica alone can have: set database.url to postgresql://…, or database.existingSecret.
{{- end }}
{{- if .Values.persistence.enabled }}
{{ $name }} is {{ $most }}, and persistence.enabled is true: the volume is for one replica; with PostgreSQL none is needed.
{{- end }}
{{- if .Values.emulator.enabled }}
{{ $name }} is {{ $most }}, and emulator.enabled is true: each replica would have an emulator of its own; try it out with one.
{{- end }}
{{- end }}
{{- range list "autoscaling" "keda" }}
{{- $scaler := index $.Values . }}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) }}
{{ . }}.minReplicas is {{ int $scaler.minReplicas }}, above {{ . }}.maxReplicas, which is {{ int $scaler.maxReplicas }}.
{{- end }}
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.drain" -}}
{{- $settings := .Values.settings }}
{{- $delay := ternary 5 $settings.FALGW_SHUTDOWN_DELAY (has (toString $settings.FALGW_SHUTDOWN_DELAY) (list "" "<nil>")) | float64 }}
{{- $drain := ternary 900 $settings.FALGW_DRAIN_TIMEOUT (has (toString $settings.FALGW_DRAIN_TIMEOUT) (list "" "<nil>")) | float64 }}
{{- $needed := addf (.Values.preStopSleepSeconds | float64) $delay $drain 5.0 | ceil | int }}
{{- if lt (.Values.terminationGracePeriodSeconds | int) $needed }}
terminationGracePeriodSeconds is {{ .Values.terminationGracePeriodSeconds | int }}, and draining may take {{ $needed }}: preStopSleepSeconds + settings.FALGW_SHUTDOWN_DELAY + settings.FALGW_DRAIN_TIMEOUT + 5. Kubernetes would cut what is under way.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.policy" -}}
{{- if and .Values.policy .Values.existingPolicyConfigMap }}
policy and existingPolicyConfigMap are both set: one of them is the policy.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.exclusive" -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
autoscaling.enabled and keda.enabled are both true: KEDA makes a HorizontalPodAutoscaler of its own, and two of them would fight over the replicas.
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
serviceMonitor.enabled and podMonitor.enabled are both true: every series would be scraped twice.
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.targetCPUUtilizationPercentage) (not .Values.autoscaling.targetInflightRequests) }}
autoscaling.enabled is true, and there is nothing to scale on: set autoscaling.targetCPUUtilizationPercentage or autoscaling.targetInflightRequests.
{{- end }}
{{- if and .Values.keda.enabled (not .Values.keda.triggers) (not .Values.keda.prometheus.serverAddress) }}
keda.prometheus.serverAddress is empty: name the Prometheus that KEDA asks (http://prometheus.monitoring:9090), or set keda.triggers.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.image" -}}
{{- if and (eq (toString .Values.image.tag) "latest") (not .Values.image.digest) }}
image.tag is latest, which is another image tomorrow: name a version, or pin image.digest.
{{- end }}
{{- if not (or .Values.image.digest .Values.image.tag .Chart.AppVersion) }}
image.tag and image.digest are both empty: set one.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.routes" -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
httpRoute.parentRefs is empty: name the Gateway that the route belongs to.
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
ingress.hosts is empty: name a host, or the Ingress routes nothing.
{{- end }}
{{- $settings := include "fal-gateway.settings" . | fromYaml }}
{{- if eq $settings.FALGW_PORT $settings.FALGW_OPS_PORT }}
settings.FALGW_OPS_PORT is the same as settings.FALGW_PORT: the two listeners need a port each.
{{- end }}
{{- end }}

{{- define "fal-gateway.guards.env" -}}
{{- $seen := list }}
{{- range include "fal-gateway.env" . | fromYamlArray }}
{{- if has .name $seen }}
{{ .name }} is set twice: extraEnv and settings may hold nothing that the chart sets by another value.
{{- end }}
{{- $seen = append $seen .name }}
{{- end }}
{{- end }}
