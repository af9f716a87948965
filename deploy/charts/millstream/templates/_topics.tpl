{{/* A Job cannot be changed: another project, image or Kafka makes another one. The services wait for their topics, un-ready. */}}
{{- define "millstream.topics" -}}
{{- $g := .root.Values.global -}}
{{- if not $g.kafka.bootstrap -}}
{{- fail "millstream: global.kafka.bootstrap is empty: write the bootstrap servers, as global.kafka.bootstrap=kafka-bootstrap.kafka:9092" -}}
{{- end -}}
{{- include "millstream.kafka.checks" (dict "chart" "millstream" "at" "global." "v" $g) -}}
{{- if not (or $g.project.files $g.project.claim $g.project.image) -}}
{{- fail "millstream: no project: add `-f project-values.yaml`, made by `python deploy/project_values.py --global FOLDER`, or write global.project.claim or global.project.image" -}}
{{- end -}}
{{- $image := merge (dict "repository" .root.Values.topics.image "digest" "") $g.image -}}
{{- $c := merge (dict "name" (printf "%s-topics" .name) "v" (dict "image" $image "project" $g.project "kafka" $g.kafka)) . -}}
{{- with include "millstream.project" $c | trim }}
---
{{ . }}
{{- end }}
---
apiVersion: batch/v1
kind: Job
metadata:
  {{- $job := printf "%s-%s" $c.name (list $image $g.project $g.kafka | toJson | sha256sum | trunc 8) }}
  {{- include "millstream.metadata" (merge (dict "name" $job) .) | nindent 2 }}
spec:
  # Kafka may come hours later; with the longest pause of five minutes between two tries that is a day.
  backoffLimit: 300
  template:
    metadata:
      labels:
        {{- include "millstream.selector" . | nindent 8 }}
        app.kubernetes.io/component: topics
    spec:
      restartPolicy: OnFailure
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $g.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      securityContext:
        {{- include "millstream.podsecurity" . | nindent 8 }}
      containers:
        - name: topics
          image: {{ include "millstream.image" $c }}
          {{- with $g.image.pullPolicy }}
          imagePullPolicy: {{ . }}
          {{- end }}
          args: [topics, --project=/project, {{ printf "--kafka=%s" $g.kafka.bootstrap | quote }}]
          {{- with include "millstream.kafka.env" $c | trim }}
          env:
            {{- . | nindent 12 }}
          {{- end }}
          resources:
            requests: { cpu: 100m, memory: 128Mi, ephemeral-storage: 32Mi }
            limits: { memory: 512Mi, ephemeral-storage: 64Mi }
          securityContext:
            {{- include "millstream.security" . | nindent 12 }}
          volumeMounts:
            - { name: tmp, mountPath: /tmp }
            {{- include "millstream.project.mounts" $c | nindent 12 }}
            {{- with include "millstream.kafka.mounts" $c | trim }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - { name: tmp, emptyDir: { sizeLimit: 32Mi } }
        {{- include "millstream.project.volume" $c | nindent 8 }}
        {{- with include "millstream.kafka.volumes" $c | trim }}
        {{- . | nindent 8 }}
        {{- end }}
{{- end -}}
