{{/* What stands around the pods: account, Secret, metrics, alerts, dashboards, test, notes. */}}
{{- define "millstream.serviceaccount" -}}
{{- if not .v.serviceAccount.name }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
  {{- with .v.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end -}}

{{- define "millstream.externalsecret" -}}
{{- $e := .v.externalSecret -}}
{{- if $e.enabled }}
{{- $store := splitList "/" $e.store }}
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata:
  {{- include "millstream.metadata" (merge (dict "name" $e.name) .) | nindent 2 }}
spec:
  refreshInterval: {{ $e.refreshInterval }}
  secretStoreRef: { kind: {{ first $store }}, name: {{ last $store }} }
  target: { name: {{ $e.name }} }
  data:
    {{- range $key, $from := $e.keys }}
    - secretKey: {{ $key }}
      remoteRef:
        {{- toYaml $from | nindent 8 }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Of all Services of the release's chart: the pods' label `service` is what rules and scalers ask for. */}}
{{- define "millstream.servicemonitor" -}}
{{- $m := .v.serviceMonitor -}}
{{- if $m.enabled }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
    {{- with $m.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "millstream.selector" . | nindent 6 }}
  endpoints:
    - port: http
      path: /metrics
      interval: {{ $m.interval }}
{{- end }}
{{- end -}}

{{- define "millstream.prometheusrule" -}}
{{- $r := .v.prometheusRule -}}
{{- if $r.enabled }}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
    {{- with $r.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  groups:
    - name: {{ .name }}
      rules:
        {{- $where := printf "namespace=%q,service=~\"%s(-scorer)?\"" .root.Release.Namespace .name }}
        {{- $whose := printf "namespace: %q, service: %q" .root.Release.Namespace .name }}
        {{- .root.Files.Get "alerts.yaml" | replace "%s" $where | replace "%l" $whose | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Each file on one line: nobody reads it there, and a ConfigMap has an end. */}}
{{- define "millstream.dashboards" -}}
{{- $d := .v.dashboards -}}
{{- if $d.enabled }}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "millstream.metadata" (merge (dict "name" (printf "%s-dashboards" .name)) .) | nindent 2 }}
    {{- with $d.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
data:
  {{- $root := .root }}
  {{- range $path, $_ := .root.Files.Glob "dashboards/*.json" }}
  millstream-{{ base $path }}: {{ $root.Files.Get $path | fromJson | toJson | toJson }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* helm test: the service says that it is ready, in its own image, without a shell. */}}
{{- define "millstream.test" -}}
apiVersion: v1
kind: Pod
metadata:
  {{- include "millstream.metadata" (merge (dict "name" (printf "%s-test" .name)) .) | nindent 2 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  serviceAccountName: {{ .v.serviceAccount.name | default .name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .v.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "millstream.podsecurity" . | nindent 4 }}
  containers:
    - name: ready
      image: {{ include "millstream.image" . }}
      {{- with .v.image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      command:
        - /opt/venv/bin/python
        - -c
        - import urllib.request as r; print(r.urlopen('http://{{ .name }}/readyz', timeout=10).read().decode())
      resources:
        requests: { cpu: 50m, memory: 32Mi, ephemeral-storage: 16Mi }
        limits: { memory: 64Mi, ephemeral-storage: 16Mi }
      securityContext:
        {{- include "millstream.security" . | nindent 8 }}
{{- end -}}

{{- define "millstream.notes" -}}
{{- $facts := include (printf "%s.facts" .Chart.Name) . | fromYaml -}}
{{- $c := dict "root" . "v" (include "millstream.values" . | fromJson) -}}
{{- $name := include "millstream.name" $c -}}
{{- $in := printf "kubectl -n %s" .Release.Namespace -}}
{{ .Chart.Name }} is installed as {{ $name }}.

  Wait until it is ready:   {{ $in }} rollout status deployment/{{ $name }}
  Ask what it waits for:    {{ $in }} logs deployment/{{ $name }}
  Test it:                  helm -n {{ .Release.Namespace }} test {{ .Release.Name }}
  {{ printf $facts.next $name | replace "kubectl" $in }}
{{- $keda := $c.v.keda | default dict }}
{{- if dig "scorer" "enabled" false $c.v }}{{ $keda = $c.v.scorer.keda }}{{ end }}
{{- if and $keda.enabled (eq (int $keda.minReplicas) 0) }}

  keda.minReplicas is 0: raise the brokers' offsets.retention.minutes above the longest quiet time; an empty group's offsets are
  forgotten after 7 days.
{{- end }}
{{- end -}}
