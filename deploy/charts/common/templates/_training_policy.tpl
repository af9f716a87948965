{{/* Who may create Jobs may run any pod: hence what the trainer's may be. Of the cluster, so named after the namespace too. */}}
{{- define "millstream.training.policy" -}}
{{- $kind := include "millstream.training.kind" . | fromYaml -}}
{{- $api := split "/" $kind.api -}}
{{- $name := printf "%s-training" (include "millstream.training.prefix" .) -}}
{{- $account := printf "system:serviceaccount:%s:%s" .root.Release.Namespace (.v.serviceAccount.name | default .name) -}}
{{- $image := include "millstream.training.image" . | regexFind "^[^@]*" -}}
{{- $repository := regexReplaceAll ":[^/]*$" $image "" -}}
{{- $secrets := list -}}
{{- with .v.objectStore.secretName -}}{{- $secrets = append $secrets . -}}{{- end -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "millstream.labels" . | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - { apiGroups: [{{ $api._0 }}], apiVersions: [{{ $api._1 }}], operations: [CREATE], resources: [{{ $kind.resource }}] }
  matchConditions:
    - name: by-the-trainer
      expression: request.userInfo.username == {{ $account | quote }}
  {{- with index (dict "kubernetes" "object.spec.template.spec" "rayjob" "object.spec.rayClusterSpec.headGroupSpec.template.spec") .v.training.executor }}
  variables:
    - name: pod
      expression: {{ . }}
    - name: containers
      expression: variables.pod.containers + variables.pod.?initContainers.orValue([])
  {{- end }}
  validations:
    {{- if eq .v.training.executor "trainjob" }}
    - expression: object.spec.all(k, k in ["runtimeRef", "trainer", "activeDeadlineSeconds", "suspend", "managedBy"]) && object.spec.trainer.all(k, k == "args")
      message: the trainer's TrainJobs say arguments and a deadline, and nothing else
    - expression: object.spec.runtimeRef.kind == "TrainingRuntime" && object.spec.runtimeRef.name == {{ include "millstream.training.prefix" . | quote }}
      message: {{ printf "the trainer's TrainJobs run the TrainingRuntime %s alone" (include "millstream.training.prefix" .) | quote }}
    {{- else if eq .v.training.executor "workflow" }}
    - expression: object.spec.all(k, k in ["workflowTemplateRef", "arguments", "activeDeadlineSeconds"])
      message: the trainer's Workflows say arguments and a deadline, and nothing else
    - expression: object.spec.workflowTemplateRef.name == {{ include "millstream.training.prefix" . | quote }} && !object.spec.workflowTemplateRef.?clusterScope.orValue(false)
      message: {{ printf "the trainer's Workflows run the WorkflowTemplate %s alone" (include "millstream.training.prefix" .) | quote }}
    {{- else }}
    {{- if eq .v.training.executor "rayjob" }}
    - expression: object.spec.all(k, k in ["entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "rayClusterSpec", "suspend"]) && object.spec.rayClusterSpec.all(k, k == "headGroupSpec") && object.spec.submissionMode == "HTTPMode"
      message: the trainer's RayJobs are one pod, Ray's head
    {{- end }}
    {{- with .v.training.policy.imagePrefix }}
    - expression: variables.containers.all(c, c.image.startsWith({{ . | quote }}))
      message: {{ printf "the trainer's Jobs run images of %s alone (training.policy.imagePrefix)" . | quote }}
    {{- else }}
    - expression: variables.containers.all(c, c.image.startsWith({{ printf "%s:" $repository | quote }}) || c.image.startsWith({{ printf "%s@" $repository | quote }}))
      message: {{ printf "the trainer's Jobs run images of %s alone" $repository | quote }}
    {{- end }}
    - expression: variables.pod.?serviceAccountName.orValue("default") == {{ include "millstream.training.account" . | quote }} && variables.pod.?automountServiceAccountToken.orValue(true) == false
      message: {{ printf "the trainer's Jobs run as %s, without its token" (include "millstream.training.account" .) | quote }}
    - expression: variables.pod.?volumes.orValue([]).all(v, !has(v.hostPath) && !has(v.secret) && !has(v.projected)) && !variables.pod.?hostNetwork.orValue(false) && !variables.pod.?hostPID.orValue(false)
      message: the trainer's Jobs have nothing of the node, and no Secret as a volume
    - expression: variables.containers.all(c, c.?env.orValue([]).all(e, !has(e.valueFrom)) && c.?envFrom.orValue([]).all(f, has(f.secretRef) && f.secretRef.name in {{ $secrets | toJson }}))
      message: the trainer's Jobs read no Secret but the lake's
    {{- end }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "millstream.labels" . | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
  matchResources:
    namespaceSelector:
      matchLabels: { kubernetes.io/metadata.name: {{ include "millstream.training.namespace" . }} }
{{- end -}}
