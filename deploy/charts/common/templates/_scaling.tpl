{{- define "millstream.target" -}}
apiVersion: apps/v1
kind: Deployment
name: {{ .workload.name }}
{{- end -}}

{{/* Up by four pods a minute, down by one in two: each step stops the whole consumer group for a second or more. */}}
{{- define "millstream.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 30
  policies:
    - { type: Pods, value: 4, periodSeconds: 60 }
scaleDown:
  stabilizationWindowSeconds: 600
  policies:
    - { type: Pods, value: 1, periodSeconds: 120 }
{{- end -}}

{{- define "millstream.hpa" -}}
{{- $hpa := .workload.values.hpa | default dict -}}
{{- if $hpa.enabled }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "millstream.workload.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    {{- include "millstream.target" . | nindent 4 }}
  minReplicas: {{ int $hpa.minReplicas }}
  maxReplicas: {{ int $hpa.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: { type: Utilization, averageUtilization: {{ int $hpa.cpuPercent }} }
  behavior:
    {{- include "millstream.behavior" . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "millstream.scaledobject" -}}
{{- $keda := .workload.values.keda | default dict -}}
{{- $facts := .workload.facts -}}
{{- $where := printf "namespace=%q,service=%q" .root.Release.Namespace .name -}}
{{- if $keda.enabled }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "millstream.workload.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    {{- include "millstream.target" . | nindent 4 }}
  minReplicaCount: {{ int $keda.minReplicas }}
  maxReplicaCount: {{ int $keda.maxReplicas }}
  pollingInterval: {{ int $keda.pollingInterval }}
  {{- if and (hasKey $keda "cooldownPeriod") (eq (int $keda.minReplicas) 0) }}
  cooldownPeriod: {{ int $keda.cooldownPeriod }}
  {{- end }}
  fallback:
    failureThreshold: 3
    replicas: {{ int $keda.fallbackReplicas }}
    behavior: currentReplicasIfHigher
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- include "millstream.behavior" . | nindent 8 }}
  triggers:
    {{- range $group := $facts.groups }}
    {{- range $topic := $keda.topics }}
    {{- if has $group ($topic.groups | default (list $group)) }}
    - type: kafka
      name: {{ printf "%s-%s" $group $topic.name }}
      # The HPA is told what the last look found. Did it look itself, between two commits, the lag would seem to stand still and count nothing.
      useCachedMetrics: true
      metadata:
        bootstrapServers: {{ $.v.kafka.bootstrap | quote }}
        version: {{ $keda.kafkaVersion | quote }}
        consumerGroup: {{ $group | quote }}
        topic: {{ $topic.name | quote }}
        # What a replica does in {{ int $keda.drainSeconds }} s.
        lagThreshold: {{ mul (int $keda.recordsPerSecond) (int $keda.drainSeconds) | quote }}
        # As the consumers themselves begin.
        offsetResetPolicy: earliest
        allowIdleConsumers: "false"
        scaleToZeroOnInvalidOffset: "false"
        limitToPartitionsWithLag: "true"
        excludePersistentLag: "true"
    {{- if $keda.prometheus }}
    - type: prometheus
      name: {{ printf "%s-%s-rate" $group $topic.name }}
      useCachedMetrics: true
      metadata:
        serverAddress: {{ $keda.prometheus | quote }}
        query: {{ printf "sum(rate(millstream_records_consumed_total{%s,group=%q,topic=%q}[2m]))" $where $group $topic.name | quote }}
        # {{ int $keda.busyPercent }} % of what a replica does: without lag they are as many as the traffic takes.
        threshold: {{ div (mul (int $keda.recordsPerSecond) (int $keda.busyPercent)) 100 | max 1 | quote }}
        # Where none runs there is no rate, and the lag says whether one has to.
        ignoreNullValues: "true"
    {{- end }}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- range $knob, $query := $facts.load }}
    - type: prometheus
      name: {{ kebabcase $knob }}
      useCachedMetrics: true
      metadata:
        serverAddress: {{ $keda.prometheus | quote }}
        query: {{ $query | replace "%s" $where | quote }}
        threshold: {{ get $keda $knob | int | quote }}
        # Pods that were asked nothing have no such series, and count as 0 by `up`; of no pods at all KEDA must not read no load.
        ignoreNullValues: "false"
    {{- end }}
    {{- range $i, $hours := $keda.schedule }}
    - type: cron
      name: schedule-{{ $i }}
      metadata:
        timezone: {{ $hours.timezone | quote }}
        start: {{ $hours.start | quote }}
        end: {{ $hours.end | quote }}
        desiredReplicas: {{ int $hours.replicas | quote }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "millstream.pdb" -}}
{{- if dig "pdb" "enabled" false .workload.values }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "millstream.workload.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  # A pod that is not ready holds no drain up.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "millstream.workload.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "millstream.vpa" -}}
{{- if .workload.values.vpa.enabled }}
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata:
  {{- include "millstream.workload.metadata" . | nindent 2 }}
spec:
  targetRef:
    {{- include "millstream.target" . | nindent 4 }}
  updatePolicy: { updateMode: "Off" }
{{- end }}
{{- end -}}
