{{/* What the common templates have to know about trainer. A second dispatcher would fence the first. Where training runs are its own
processes, the old pod goes, with its run, before the new one comes, and the run begins again; Jobs go on meanwhile. */}}
{{- define "trainer.facts" -}}
many: false
lake: true
shared: write
mlflow: true
{{- if has .Values.training.executor (list "kubernetes" "trainjob" "rayjob" "workflow") }}
jobs: true
runs: true
environment:
  MILLSTREAM_EXECUTOR: kubernetes
  MILLSTREAM_JOB_TEMPLATE: /training/job.yaml
{{- end }}
{{- if eq .Values.training.executor "keda" }}
runs: true
environment:
  MILLSTREAM_EXECUTOR: keda
  MILLSTREAM_JOB_TRIES: {{ add1 .Values.training.retries | quote }}
{{- end }}
{{- if or .Values.loops.enabled (has .Values.training.executor (list "kubernetes" "trainjob" "rayjob" "workflow")) }}
asks: true
{{- end }}
paths: [/v1]
next: |-
  See the loops: kubectl port-forward service/%s 8080:80, then GET http://localhost:8080/v1/loops
{{- end -}}
