{{/*
A pod of `helm test`: one of the files/tests, run by the Python of the gateway's own image. Takes (list $ name env).
*/}}
{{- define "fal-gateway.testPod" -}}
{{- $root := index . 0 }}{{ $name := index . 1 -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "fal-gateway.named" (list $root (printf "test-%s" $name)) }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "fal-gateway.labelsWith" (list $root "test" nil) | nindent 4 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "fal-gateway.serviceAccountName" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" }}
  {{- with index $root.Values $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  containers:
    - name: test
      image: {{ include "fal-gateway.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [python3, -c]
      args:
        - |
          {{- include "fal-gateway.block" (list 10 ($root.Files.Get (printf "files/tests/%s.py" $name))) }}
      env:
        - name: DATA_URL
          value: http://{{ include "fal-gateway.fullname" $root }}.{{ $root.Release.Namespace }}:{{ $root.Values.service.port | int }}
        - name: OPS_URL
          value: http://{{ include "fal-gateway.named" (list $root "ops") }}.{{ $root.Release.Namespace }}:{{ $root.Values.opsService.port | int }}
        {{- with index . 2 }}
        {{- . | nindent 8 }}
        {{- end }}
      resources:
        {{- toYaml $root.Values.tests.resources | nindent 8 }}
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
{{- end }}
