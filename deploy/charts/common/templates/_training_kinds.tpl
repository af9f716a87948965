{{/* What stands for a run: Kubernetes' Job, or an object of a controller that the cluster has. The pod is the same in each.
`longest`: characters of the name, behind which 17 of a run's hash come. */}}
{{- define "millstream.training.kind" -}}
{{- $kinds := dict
  "kubernetes" (dict "api" "batch/v1" "kind" "Job" "resource" "jobs" "longest" 46)
  "trainjob" (dict "api" "trainer.kubeflow.org/v1alpha1" "kind" "TrainJob" "resource" "trainjobs" "longest" 30 "stays" true)
  "rayjob" (dict "api" "ray.io/v1" "kind" "RayJob" "resource" "rayjobs" "longest" 30 "stays" true)
  "workflow" (dict "api" "argoproj.io/v1alpha1" "kind" "Workflow" "resource" "workflows" "longest" 46)
  "keda" (dict "api" "keda.sh/v1alpha1" "kind" "ScaledJob" "resource" "scaledjobs" "longest" 46)
-}}
{{- get $kinds (ternary "kubernetes" .v.training.executor (eq .v.training.executor "process")) | toYaml -}}
{{- end -}}

{{/* What the trainer adds to each: a name, labels, arguments and a deadline. Nothing of Kafka. */}}
{{- define "millstream.training.job" -}}
{{- $t := .v.training -}}
{{- $kind := include "millstream.training.kind" . | fromYaml -}}
apiVersion: {{ $kind.api }}
kind: {{ $kind.kind }}
metadata:
  name: {{ include "millstream.training.prefix" . }}
  namespace: {{ include "millstream.training.namespace" . }}
  labels:
    {{- include "millstream.training.selector" . | nindent 4 }}
    app.kubernetes.io/part-of: millstream
  {{- if $kind.stays }}
  annotations:
    millstream/ttl-seconds-after-finished: {{ int $t.ttlSecondsAfterFinished | quote }}
  {{- end }}
spec:
  {{- include (printf "millstream.training.%s" $t.executor) . | nindent 2 }}
{{- end -}}

{{- define "millstream.training.kubernetes" -}}
{{ include "millstream.training.jobspec" . }}
{{- end -}}

{{- define "millstream.training.trainjob" -}}
runtimeRef: { apiGroup: trainer.kubeflow.org, kind: TrainingRuntime, name: {{ include "millstream.training.prefix" . }} }
{{- end -}}

{{/* One pod: Ray's head, in which Ray starts the run. */}}
{{- define "millstream.training.rayjob" -}}
{{- $pod := include "millstream.training.pod" . | fromYaml -}}
{{- $container := first $pod.spec.containers -}}
entrypoint: {{ join " " $container.command }}
# The operator asks Ray itself: any other way is a second pod or container.
submissionMode: HTTPMode
backoffLimit: {{ int .v.training.retries }}
# An idle cluster holds its GPU.
shutdownAfterJobFinishes: true
rayClusterSpec:
  headGroupSpec:
    rayStartParams: { dashboard-host: 0.0.0.0 }
    template:
      {{- $_ := unset $container "command" }}
      {{- toYaml $pod | nindent 6 }}
{{- end -}}

{{- define "millstream.training.workflow" -}}
workflowTemplateRef: { name: {{ include "millstream.training.prefix" . }} }
{{- end -}}

{{/* What a TrainJob or a Workflow refers to: there the pod stands, and who makes runs cannot change it. */}}
{{- define "millstream.training.beside" -}}
{{- $t := .v.training }}
{{- if eq $t.executor "trainjob" }}
---
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainingRuntime
metadata:
  {{- include "millstream.training.metadata" (merge (dict "called" (include "millstream.training.prefix" .)) .) | nindent 2 }}
spec:
  mlPolicy: { numNodes: 1 }
  template:
    spec:
      {{- /* Names that Kubeflow looks for: node, and the label. */}}
      ttlSecondsAfterFinished: {{ int $t.ttlSecondsAfterFinished }}
      replicatedJobs:
        - name: node
          template:
            metadata:
              labels: { trainer.kubeflow.org/trainjob-ancestor-step: trainer }
            spec:
              {{- omit (include "millstream.training.jobspec" (merge (dict "container" "node") .) | fromYaml) "ttlSecondsAfterFinished" | toYaml | nindent 14 }}
{{- end }}
{{- if eq $t.executor "workflow" }}
{{- $pod := include "millstream.training.pod" . | fromYaml }}
{{- $account := printf "%s-training-argo" .name }}
---
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata:
  {{- include "millstream.training.metadata" (merge (dict "called" (include "millstream.training.prefix" .)) .) | nindent 2 }}
spec:
  entrypoint: training
  arguments:
    parameters: [{ name: name }, { name: spec }]
  ttlStrategy: { secondsAfterCompletion: {{ int $t.ttlSecondsAfterFinished }} }
  # Of Argo's own container, which reports how the run's ended; the run's has no token.
  executor: { serviceAccountName: {{ $account }} }
  {{- pick $pod.spec "serviceAccountName" "automountServiceAccountToken" "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "securityContext" "volumes" | toYaml | nindent 2 }}
  podSpecPatch: {{ pick $pod.spec "enableServiceLinks" "runtimeClassName" "priorityClassName" | toJson | quote }}
  templates:
    - name: training
      metadata:
        {{- toYaml $pod.metadata | nindent 8 }}
      retryStrategy:
        limit: {{ int $t.retries | quote }}
        retryPolicy: Always
        # The run has said why it failed, or cannot read what it was told: another pod would end alike.
        expression: "!(lastRetry.exitCode in ['2', '3'])"
      container:
        {{- omit (first $pod.spec.containers) "name" | toYaml | nindent 8 }}
        args: [{{ "\"{{workflow.parameters.name}}\", \"{{workflow.parameters.spec}}\"" }}]
---
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "millstream.training.metadata" (merge (dict "called" $account) .) | nindent 2 }}
automountServiceAccountToken: false
---
# Argo looks for the token of its container by this name.
apiVersion: v1
kind: Secret
type: kubernetes.io/service-account-token
metadata:
  {{- include "millstream.training.metadata" (merge (dict "called" (printf "%s.service-account-token" $account)) .) | nindent 2 }}
  annotations: { kubernetes.io/service-account.name: {{ $account }} }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "millstream.training.metadata" (merge (dict "called" $account) .) | nindent 2 }}
rules:
  - { apiGroups: [argoproj.io], resources: [workflowtaskresults], verbs: [create, patch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "millstream.training.metadata" (merge (dict "called" $account) .) | nindent 2 }}
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $account }} }
subjects:
  - { kind: ServiceAccount, name: {{ $account }}, namespace: {{ include "millstream.training.namespace" . }} }
{{- end }}
{{- end -}}

{{/* Where the trainer may make no Jobs: it offers its runs on a topic, and KEDA starts a pod for each that waits. Of triggers an
edit of a ScaledJob with the default rollout ends the Jobs that run; its default strategy counts those as begun, another does not. */}}
{{- define "millstream.training.scaledjob" -}}
{{- $t := .v.training }}
{{- $s := .v.settings }}
{{- $patience := list (dig "job_patience" 900 $s) (dig "run_timeout" 1800 $s) (dig "mlflow_patience" 60 $s) }}
{{- $job := include "millstream.training.jobspec" . | fromYaml }}
{{- $pod := $job.template.spec }}
{{- $container := first $pod.containers }}
{{- $kafka := list (dict "name" "MILLSTREAM_KAFKA" "value" .v.kafka.bootstrap) }}
{{- $kafka = concat $kafka (include "millstream.kafka.env" . | fromYamlArray) }}
{{- $kafka = append $kafka (dict "name" "MILLSTREAM_JOB_TRIES" "value" (add1 $t.retries | toString)) }}
{{- $_ := set $container "command" (list "/opt/venv/bin/python" "-m" "millstream_trainer.adapters.taking_job") }}
{{- $_ := set $container "env" (concat $container.env $kafka) }}
{{- with include "millstream.kafka.mounts" . | trim }}
{{- $_ := set $container "volumeMounts" (concat $container.volumeMounts (fromYamlArray .)) }}
{{- end }}
{{- with include "millstream.kafka.volumes" . | trim }}
{{- $_ := set $pod "volumes" (concat $pod.volumes (fromYamlArray .)) }}
{{- end }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata:
  {{- include "millstream.training.metadata" . | nindent 2 }}
spec:
  pollingInterval: {{ int $t.pollingInterval }}
  maxReplicaCount: {{ int $t.maxRuns }}
  # The default ends the Jobs that run whenever this object is changed.
  rollout: { strategy: gradual }
  triggers:
    - type: kafka
      metadata:
        bootstrapServers: {{ .v.kafka.bootstrap | quote }}
        {{- with include "millstream.kafka.sasl" . }}
        sasl: {{ . | lower | replace "-sha-" "_sha" | replace "plain" "plaintext" | quote }}
        {{- end }}
        {{- if include "millstream.kafka.tls" . }}
        tls: enable
        {{- end }}
        version: "3.6.0"
        consumerGroup: training-jobs
        topic: millstream-training-jobs
        # A pod for each run.
        lagThreshold: "1"
        offsetResetPolicy: earliest
        # The group has no members, so that its partitions bound nothing.
        allowIdleConsumers: "true"
        scaleToZeroOnInvalidOffset: "false"
      {{- if include "millstream.kafka.secured" . }}
      authenticationRef: { name: {{ .name }}-training }
      {{- end }}
  jobTargetRef:
    # Of Jobs that nobody watches: to wait for a node, to train, to be written down.
    activeDeadlineSeconds: {{ add (index $patience 0 | int) (index $patience 1 | int) (index $patience 2 | int) }}
    {{- toYaml $job | nindent 4 }}
{{- if include "millstream.kafka.secured" . }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  {{- include "millstream.training.metadata" . | nindent 2 }}
spec:
  {{- include "millstream.kafka.keda" (merge (dict "container" "training") .) | trim | nindent 2 }}
{{- end }}
{{- end -}}
