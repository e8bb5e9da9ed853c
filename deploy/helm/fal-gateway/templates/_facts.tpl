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

{{/* The ports of Redis; none for a socket in the pod. */}}
{{- define "fal-gateway.redisPorts" -}}
{{- if include "fal-gateway.redis" . }}
{{- $url := ternary "" .Values.redis.url (not (empty .Values.redis.existingSecret)) }}
{{- if not (hasPrefix "unix:" $url) }}
{{- include "fal-gateway.portsOf" (dict "url" $url "default" .Values.networkPolicy.redisPort) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The ports of the database; none for a file. */}}
{{- define "fal-gateway.databasePorts" -}}
{{- if not (include "fal-gateway.sqlite" .) }}
{{- $url := ternary "" .Values.database.url (not (empty .Values.database.existingSecret)) }}
{{- include "fal-gateway.portsOf" (dict "url" $url "default" .Values.networkPolicy.databasePort) }}
{{- end }}
{{- end }}

{{/*
The ports that a URL leads to, as a list: of its query (`port=`, `host=name:port`), which goes before its hosts; what
names none gets the default. Takes (dict "url" … "default" …).
*/}}
{{- define "fal-gateway.portsOf" -}}
{{- $rest := regexReplaceAll `^[a-z]+://` .url "" }}
{{- $hosts := regexReplaceAll `^.*@` (regexReplaceAll `[/?].*$` $rest "") "" | splitList "," }}
{{- $query := regexReplaceAll `^[^?]*` $rest "" | replace "%3A" ":" | replace "%2C" "," }}
{{- with regexFindAll `[?&]host=[^&]+` $query -1 }}
{{- $hosts = regexReplaceAll `[?&]host=` (join "," .) "" | splitList "," }}
{{- end }}
{{- $ports := list }}
{{- range $hosts }}
{{- $shape := `^(?:\[.*\]|[^:]*):([0-9]+)$` }}
{{- $ports = append $ports (ternary (regexReplaceAll $shape . "${1}") (toString (int $.default)) (regexMatch $shape .)) }}
{{- end }}
{{- with regexFind `[?&]port=[0-9,]+` $query }}
{{- $ports = regexReplaceAll `^.*=` . "" | splitList "," | compact }}
{{- end }}
{{- toYaml (uniq $ports) }}
{{- end }}

{{/* The gateway's variables by name, as texts; nothing for one that comes from elsewhere. */}}
{{- define "fal-gateway.variables" -}}
{{- $texts := dict }}
{{- range include "fal-gateway.env" . | fromYamlArray }}{{ $_ := set $texts .name (default "" .value) }}{{ end }}
{{- toYaml $texts }}
{{- end }}

{{/* A plain value as text: Helm reads numbers as floats, and would write 1e+09. */}}
{{- define "fal-gateway.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* A text as the inside of a block, without spaces on its empty lines. Takes (list indent text). */}}
{{- define "fal-gateway.block" -}}
{{- regexReplaceAll "(?m)^ +$" (index . 1 | trimAll "\n" | nindent (index . 0)) "" }}
{{- end }}
