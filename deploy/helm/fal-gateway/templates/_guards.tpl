{{/*
What would render, and not work. Every sentence names the value that is wrong, and all of them are said at once.
*/}}
{{- define "fal-gateway.guards" -}}
{{- $faults := list }}
{{- range list "credential" "replicas" "drain" "policy" "exclusive" "image" "routes" "env" "names" "labels" "ports" "strategy" "service" }}
{{- $found := include (printf "fal-gateway.guards.%s" .) $ | trim }}
{{- if $found }}{{ $faults = append $faults $found }}{{ end }}
{{- end }}
{{- if $faults }}{{ fail (printf "\n%s" (join "\n" $faults)) }}{{ end }}
{{- end }}

{{/* What extraEnvFrom brings is not known: it may be a credential, or the other half of one. */}}
{{- define "fal-gateway.guards.credential" -}}
{{- $brought := list }}
{{- range .Values.extraEnv }}
{{- if has .name (list "FAL_KEY" "FAL_KEY_FILE" "FAL_KEY_ID" "FAL_KEY_SECRET") }}{{ $brought = append $brought .name }}{{ end }}
{{- end }}
{{- if and .Values.emulator.enabled (or .Values.existingSecret $brought) }}
emulator.enabled: the emulator shows every credential that reaches it; leave existingSecret empty, and FAL_KEY out of extraEnv.
{{- else if not (or .Values.existingSecret $brought .Values.emulator.enabled .Values.extraEnvFrom) }}
existingSecret is empty: name the Secret that holds the fal credential (kubectl create secret generic fal --from-literal=FAL_KEY=…), or try without an account by emulator.enabled=true.
{{- else if and .Values.existingSecret $brought }}
existingSecret and extraEnv both bring the fal credential: keep one of them.
{{- else if and (ne (has "FAL_KEY_ID" $brought) (has "FAL_KEY_SECRET" $brought)) (not .Values.extraEnvFrom) }}
extraEnv brings one half of the fal credential: FAL_KEY_ID and FAL_KEY_SECRET go together.
{{- end }}
{{- include "fal-gateway.guards.secretKeys" . }}
{{- end }}

{{- define "fal-gateway.guards.secretKeys" -}}
{{- $keys := .Values.secretKeys }}
{{- if and $keys.falKeyId (not $keys.falKeySecret) }}
secretKeys.falKeyId goes with secretKeys.falKeySecret: name both halves of the credential, or falKey alone.
{{- else if and $keys.falKeySecret (not $keys.falKeyId) }}
secretKeys.falKeySecret goes with secretKeys.falKeyId: name both halves of the credential, or falKey alone.
{{- end }}
{{- if and $keys.asFile (or $keys.falKeyId $keys.falKeySecret) }}
secretKeys.asFile hands over the whole credential, which is secretKeys.falKey: leave falKeyId and falKeySecret empty.
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

{{/* By the variables as they are set, also those of extraEnv; else by the gateway's defaults. */}}
{{- define "fal-gateway.guards.drain" -}}
{{- $set := include "fal-gateway.variables" . | fromYaml }}
{{- $delay := $set.FALGW_SHUTDOWN_DELAY | default "5" | float64 }}
{{- $drain := $set.FALGW_DRAIN_TIMEOUT | default "900" | float64 }}
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
