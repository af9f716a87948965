{{/* What the common templates have to know about serving. Without a scorer its pods answer at both doors. */}}
{{- define "serving.facts" -}}
many: true
valkey: needed
shared: read
load:
  perSecond: >-
    (sum(rate(millstream_predictions_served_total{transport="http",%s}[1m])) or 0 * sum(up{%s}))
    + (sum(rate(millstream_questions_shed_total{%s}[1m])) or 0 * sum(up{%s}))
environment:
  MILLSTREAM_DOORS: {{ ternary "http" "both" .Values.scorer.enabled }}
{{- if .Values.scorer.enabled }}
scorer:
  groups: [serving]
  environment:
    MILLSTREAM_DOORS: kafka
{{- end }}
paths: [/v1, /v2]
next: |-
  See which models answer: kubectl port-forward service/%s 8080:80, then GET http://localhost:8080/v1/loops
{{- end -}}
