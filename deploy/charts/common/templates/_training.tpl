{{/* Training as Jobs: what a Job is made of, and who may do what in the Jobs' namespace. */}}
{{- define "millstream.training.namespace" -}}
{{ .v.training.namespace | default .root.Release.Namespace }}
{{- end -}}

{{- define "millstream.training.metadata" -}}
name: {{ .called | default (printf "%s-training" .name) }}
namespace: {{ include "millstream.training.namespace" . }}
labels:
  {{- include "millstream.labels" . | nindent 2 }}
{{- end -}}

{{/* Not the trainer's own: its Service, policies and rules are none of theirs. */}}
{{- define "millstream.training.selector" -}}
app.kubernetes.io/name: training
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "millstream.training.account" -}}
{{ .v.training.serviceAccount.name | default (printf "%s-training" .name) }}
{{- end -}}

{{- define "millstream.training.image" -}}
{{ .v.training.image | default (include "millstream.image" . | trimAll "\"") }}
{{- end -}}

{{/* Of a cluster: several releases may train in one namespace. A hash of the run follows. */}}
{{- define "millstream.training.prefix" -}}
{{- $whole := printf "%s-%s" .root.Release.Namespace .name -}}
{{- $longest := int (include "millstream.training.kind" . | fromYaml).longest -}}
{{- if gt (len $whole) $longest -}}
{{ printf "%s-%s" ($whole | trunc (int (sub $longest 9)) | trimSuffix "-") (sha256sum $whole | trunc 8) }}
{{- else -}}
{{ $whole }}
{{- end -}}
{{- end -}}

{{/* The project's ConfigMap is in the trainer's namespace, and pods of another one cannot have it. */}}
{{- define "millstream.training.project" -}}
{{- $elsewhere := ne (include "millstream.training.namespace" .) .root.Release.Namespace -}}
{{ ternary (printf "%s-training" .name) .name $elsewhere }}
{{- end -}}

{{/* The pod of a run, whoever makes it; `container`: how it has to be called. Of settings only what a run reads. */}}
{{- define "millstream.training.pod" -}}
{{- $v := .v -}}
{{- $t := .v.training -}}
metadata:
  labels:
    {{- include "millstream.training.selector" . | nindent 4 }}
    {{- with $v.pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.pod.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "millstream.training.account" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with $v.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- range $key := list "runtimeClassName" "priorityClassName" }}
  {{- with get $t $key }}
  {{ $key }}: {{ . }}
  {{- end }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" }}
  {{- with get $t $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  securityContext:
    {{- include "millstream.podsecurity" . | nindent 4 }}
  containers:
    - name: {{ .container | default "training" }}
      image: {{ include "millstream.training.image" . | quote }}
      {{- with $v.image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      command: [/opt/venv/bin/python, -m, millstream_trainer.adapters.training_job]
      env:
        - { name: MILLSTREAM_LAKE, value: {{ $v.lake.url | default "/shared/lake" | quote }} }
        - { name: MILLSTREAM_PACKAGES, value: /shared/packages }
        {{- with $v.mlflow.url }}
        - { name: MILLSTREAM_MLFLOW, value: {{ . | quote }} }
        {{- end }}
        {{- range $name, $value := $v.objectStore.env }}
        - { name: {{ $name }}, value: {{ $value | quote }} }
        {{- end }}
        {{- range $name := list "lake_patience" "log_level" "mlflow_patience" "model_hosts" "train_threads" }}
        {{- if hasKey $v.settings $name }}
        - { name: {{ printf "MILLSTREAM_%s" (upper $name) }}, value: {{ include "millstream.text" (get $v.settings $name) | quote }} }
        {{- end }}
        {{- end }}
      {{- with $v.objectStore.secretName }}
      envFrom:
        - secretRef: { name: {{ . }} }
      {{- end }}
      resources:
        {{- toYaml $t.resources | nindent 8 }}
      securityContext:
        {{- include "millstream.security" . | nindent 8 }}
      volumeMounts:
        - { name: tmp, mountPath: /tmp }
        - { name: data, mountPath: /data }
        {{- include "millstream.project.mounts" . | nindent 8 }}
        - { name: shared, mountPath: /shared }
  volumes:
    - { name: tmp, emptyDir: { sizeLimit: 128Mi } }
    - { name: data, emptyDir: { sizeLimit: {{ $v.data.size }} } }
    {{- include "millstream.project.volume" (merge (dict "name" (include "millstream.training.project" .)) .) | nindent 4 }}
    {{- if include "millstream.project.loops" . }}
    - { name: loops, configMap: { name: {{ include "millstream.loops.training" . }} } }
    {{- end }}
    - { name: shared, persistentVolumeClaim: { claimName: {{ $t.claim | default $v.shared.claim }} } }
{{- end -}}

{{/* How a Job ends and is tried again. */}}
{{- define "millstream.training.jobspec" -}}
backoffLimit: {{ int .v.training.retries }}
ttlSecondsAfterFinished: {{ int .v.training.ttlSecondsAfterFinished }}
# Never two pods of one run.
podReplacementPolicy: Failed
podFailurePolicy:
  rules:
    # An evicted pod, a drained or reclaimed node: begun again, and not counted.
    - action: Ignore
      onPodConditions: [{ type: DisruptionTarget, status: "True" }]
    # The run has said why it failed (3), or cannot read what it was told (2): another pod would end alike.
    - action: FailJob
      onExitCodes: { containerName: {{ .container | default "training" }}, operator: In, values: [2, 3] }
template:
  {{- include "millstream.training.pod" . | nindent 2 }}
{{- end -}}

{{- define "millstream.training" -}}
{{- if .facts.runs }}
{{- $t := .v.training }}
{{- $kind := include "millstream.training.kind" . | fromYaml }}
{{- $own := .v.serviceAccount.name | default .name }}
{{- $elsewhere := ne (include "millstream.training.namespace" .) .root.Release.Namespace }}
{{- if .facts.jobs }}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "millstream.metadata" (merge (dict "name" (printf "%s-training" .name)) .) | nindent 2 }}
data:
  job.yaml: |
    {{- include "millstream.training.job" . | nindent 4 }}
{{- end }}
{{- if and $elsewhere .v.project.files }}
---
{{ include "millstream.project" (merge (dict "name" (printf "%s-training" .name) "in" (include "millstream.training.namespace" .)) .) | trim }}
{{- end }}
{{- if not $t.serviceAccount.name }}
---
# Without any right.
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "millstream.training.metadata" . | nindent 2 }}
  {{- with $t.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- if .facts.jobs }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "millstream.training.metadata" . | nindent 2 }}
rules:
  - { apiGroups: [{{ splitList "/" $kind.api | first }}], resources: [{{ $kind.resource }}], verbs: [create, get, {{ if $kind.stays }}list, {{ end }}watch, delete] }
  # Why a Job does not begin, or how it ended.
  - { apiGroups: [""], resources: [pods], verbs: [list] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "millstream.training.metadata" . | nindent 2 }}
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }}-training }
subjects:
  - { kind: ServiceAccount, name: {{ $own }}, namespace: {{ .root.Release.Namespace }} }
{{- else }}
{{- include "millstream.training.scaledjob" . }}
{{- end }}
{{- include "millstream.training.beside" . }}
{{- with $t.quota }}
---
apiVersion: v1
kind: ResourceQuota
metadata:
  {{- include "millstream.training.metadata" $ | nindent 2 }}
spec:
  hard:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- if .v.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "millstream.training.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "millstream.training.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  egress:
    {{- include "millstream.dns" . | nindent 4 }}
    {{- if not .facts.jobs }}
    - ports:
        {{- range include "millstream.ports" . | fromJsonArray }}
        - { port: {{ int . }}, protocol: TCP }
        {{- end }}
    {{- end }}
    {{- with .v.networkPolicy.to }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- if and .facts.jobs $t.policy.enabled }}
---
{{ include "millstream.training.policy" . }}
{{- end }}
{{- end }}
{{- end -}}
