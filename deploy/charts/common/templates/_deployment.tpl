{{- define "millstream.deployment" -}}
{{- $v := .v -}}
{{- $w := .workload.values -}}
{{- $scaled := or (dig "hpa" "enabled" false $w) (dig "keda" "enabled" false $w) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "millstream.workload.metadata" . | nindent 2 }}
spec:
  {{- if not .workload.facts.many }}
  replicas: 1
  {{- else if not $scaled }}
  replicas: {{ int $w.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "millstream.workload.selector" . | nindent 6 }}
  strategy:
    {{- if and .workload.facts.many (not .workload.facts.recreate) }}
    type: RollingUpdate
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
    {{- else }}
    type: Recreate
    {{- end }}
  template:
    metadata:
      labels:
        {{- include "millstream.workload.selector" . | nindent 8 }}
        {{- with $v.pod.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .root.Chart.Name }}
        {{- if $v.project.files }}
        millstream/project: {{ $v.project.files | toJson | sha256sum | trunc 16 | quote }}
        {{- else if $v.project.revision }}
        millstream/project: {{ $v.project.revision | quote }}
        {{- end }}
        {{- if .facts.jobs }}
        millstream/training: {{ include "millstream.training.job" . | sha256sum | trunc 16 | quote }}
        {{- end }}
        {{- if $v.istio.enabled }}
        traffic.sidecar.istio.io/excludeOutboundPorts: {{ include "millstream.ports" . | fromJsonArray | join "," | quote }}
        {{- end }}
        {{- with $v.pod.annotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $v.serviceAccount.name | default .name }}
      automountServiceAccountToken: {{ .facts.asks | default false }}
      # A Service called millstream would be MILLSTREAM_PORT to us.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ int $v.terminationGracePeriodSeconds }}
      {{- with $v.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      {{- with $v.pod.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        {{- include "millstream.podsecurity" . | nindent 8 }}
      {{- if .workload.facts.many }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ . }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "millstream.workload.selector" $ | nindent 14 }}
        {{- end }}
      {{- end }}
      {{- with $v.pod.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.pod.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.pod.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .root.Chart.Name }}
          image: {{ include "millstream.image" . }}
          {{- with $v.image.pullPolicy }}
          imagePullPolicy: {{ . }}
          {{- end }}
          ports:
            - { name: http, containerPort: 8080 }
            {{- if and (dig "grpc" "enabled" false $v) (ne .workload.component "scorer") }}
            - { name: grpc, containerPort: 9090 }
            {{- end }}
          env:
            {{- include "millstream.env" . | nindent 12 }}
          {{- with and .facts.lake (dig "objectStore" "secretName" "" $v) }}
          envFrom:
            - secretRef: { name: {{ . }} }
          {{- end }}
          # Alive is who gets on, whatever Kafka does: an outage must not restart everything. What a pod waits for, /readyz says.
          startupProbe:
            httpGet: { path: /livez, port: http }
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe:
            httpGet: { path: /livez, port: http }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: { path: /readyz, port: http }
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 2
          lifecycle:
            # Until no proxy sends here any more; then SIGTERM, and the service finishes what it has.
            preStop: { sleep: { seconds: 5 } }
          resources:
            {{- toYaml $w.resources | nindent 12 }}
          securityContext:
            {{- include "millstream.security" . | nindent 12 }}
          volumeMounts:
            - { name: tmp, mountPath: /tmp }
            - { name: data, mountPath: /data }
            {{- include "millstream.project.mounts" . | nindent 12 }}
            {{- if include "millstream.shared" . }}
            - { name: shared, mountPath: /shared{{ if eq .facts.shared "read" }}, readOnly: true{{ end }} }
            {{- end }}
            {{- with include "millstream.kafka.mounts" . | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- if .facts.jobs }}
            - { name: training, mountPath: /training, readOnly: true }
            {{- end }}
            {{- range list "ca" "client" }}
            {{- if dig "schemaRegistry" (printf "%sSecretName" .) "" $v }}
            - { name: registry-{{ . }}, mountPath: /registry/{{ . }}, readOnly: true }
            {{- end }}
            {{- end }}
      volumes:
        - { name: tmp, emptyDir: { sizeLimit: 128Mi } }
        - { name: data, emptyDir: { sizeLimit: {{ $w.data.size }} } }
        {{- include "millstream.project.volume" . | nindent 8 }}
        {{- with include "millstream.project.loops" . }}
        - { name: loops, configMap: { name: {{ . }} } }
        {{- end }}
        {{- if include "millstream.shared" . }}
        - { name: shared, persistentVolumeClaim: { claimName: {{ $v.shared.claim }}{{ if eq .facts.shared "read" }}, readOnly: true{{ end }} } }
        {{- end }}
        {{- with include "millstream.kafka.volumes" . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- if .facts.jobs }}
        - { name: training, configMap: { name: {{ .name }}-training } }
        {{- end }}
        {{- range $which := list "ca" "client" }}
        {{- with dig "schemaRegistry" (printf "%sSecretName" $which) "" $v }}
        - { name: registry-{{ $which }}, secret: { secretName: {{ . }} } }
        {{- end }}
        {{- end }}
{{- end -}}
