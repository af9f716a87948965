{{/* Loops as resources: the ConfigMaps that the trainer fills, and what it may do for that. */}}

{{/* Where training pods have it from: one of another namespace cannot have the release's. */}}
{{- define "millstream.loops.training" -}}
{{- $elsewhere := ne (include "millstream.training.namespace" .) .root.Release.Namespace -}}
{{- if $elsewhere -}}
{{ include "millstream.training.prefix" . }}-loops
{{- else -}}
{{ include "millstream.project.loops" . }}
{{- end -}}
{{- end -}}

{{- define "millstream.loops.elsewhere" -}}
{{- if and .facts.runs (ne (include "millstream.training.namespace" .) .root.Release.Namespace) -}}true{{- end -}}
{{- end -}}

{{- define "millstream.loops.env" -}}
{{- $configs := list (printf "%s/%s" .root.Release.Namespace (include "millstream.project.loops" .)) -}}
{{- if include "millstream.loops.elsewhere" . -}}
{{- $configs = append $configs (printf "%s/%s" (include "millstream.training.namespace" .) (include "millstream.loops.training" .)) -}}
{{- end }}
- name: MILLSTREAM_LOOP_CONFIGS
  value: {{ join "," $configs | quote }}
- name: MILLSTREAM_LOOP_RESTARTS
  value: {{ append .v.loops.restart .name | uniq | join "," | quote }}
{{- end -}}

{{- define "millstream.loops" -}}
{{- if dig "loops" "enabled" false .v }}
{{- $config := include "millstream.project.loops" . }}
{{- $own := .v.serviceAccount.name | default .name }}
# Empty here: the trainer fills it, and an upgrade leaves what is in it.
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "millstream.metadata" (merge (dict "name" $config) .) | nindent 2 }}
data: {}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "millstream.metadata" (merge (dict "name" (printf "%s-loops" .name)) .) | nindent 2 }}
rules:
  - { apiGroups: [millstream.dev], resources: [millstreamloops], verbs: [list, watch] }
  - { apiGroups: [millstream.dev], resources: [millstreamloops/status], verbs: [patch] }
  - { apiGroups: [""], resources: [configmaps], resourceNames: [{{ $config }}], verbs: [get, patch] }
  - { apiGroups: [apps], resources: [deployments], resourceNames: {{ append .v.loops.restart .name | uniq | toJson }}, verbs: [patch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "millstream.metadata" (merge (dict "name" (printf "%s-loops" .name)) .) | nindent 2 }}
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }}-loops }
subjects:
  - { kind: ServiceAccount, name: {{ $own }}, namespace: {{ .root.Release.Namespace }} }
{{- if include "millstream.loops.elsewhere" . }}
{{- $there := include "millstream.training.namespace" . }}
{{- $copy := include "millstream.loops.training" . }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "millstream.metadata" (merge (dict "name" $copy "in" $there) .) | nindent 2 }}
data: {}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "millstream.metadata" (merge (dict "name" $copy "in" $there) .) | nindent 2 }}
rules:
  - { apiGroups: [""], resources: [configmaps], resourceNames: [{{ $copy }}], verbs: [get, patch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "millstream.metadata" (merge (dict "name" $copy "in" $there) .) | nindent 2 }}
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $copy }} }
subjects:
  - { kind: ServiceAccount, name: {{ $own }}, namespace: {{ .root.Release.Namespace }} }
{{- end }}
{{- if .v.loops.policy.enabled }}
---
{{ include "millstream.loops.policy" . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Who may patch a Deployment may run any pod: hence that the trainer changes its mark alone. Of the cluster. */}}
{{- define "millstream.loops.policy" -}}
{{- $name := printf "%s-loops" (include "millstream.training.prefix" .) -}}
{{- $account := printf "system:serviceaccount:%s:%s" .root.Release.Namespace (.v.serviceAccount.name | default .name) -}}
{{- $mark := "millstream/loops" -}}
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
      - { apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [deployments] }
  matchConditions:
    - name: by-the-trainer
      expression: request.userInfo.username == {{ $account | quote }}
  variables:
    - name: was
      expression: oldObject.spec.template.metadata.?annotations.orValue({})
    - name: is
      expression: object.spec.template.metadata.?annotations.orValue({})
  validations:
    - expression: >-
        object.spec.template.spec == oldObject.spec.template.spec && object.spec.replicas == oldObject.spec.replicas
        && object.spec.strategy == oldObject.spec.strategy
      message: the trainer starts pods again, and changes nothing in them
    - expression: >-
        object.spec.template.metadata.?labels.orValue({}) == oldObject.spec.template.metadata.?labels.orValue({})
        && variables.is.all(k, k == '{{ $mark }}' || (k in variables.was && variables.was[k] == variables.is[k]))
        && variables.was.all(k, k == '{{ $mark }}' || k in variables.is)
      message: {{ printf "the trainer changes the annotation %s of pods alone" $mark | quote }}
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
      matchLabels: { kubernetes.io/metadata.name: {{ .root.Release.Namespace }} }
{{- end -}}
