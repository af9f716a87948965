{{/* What the common templates have to know about ingest. */}}
{{- define "ingest.facts" -}}
many: true
valkey: optional
load:
  perSecond: sum(rate(millstream_ingest_request_seconds_count{%s}[1m])) or 0 * sum(up{%s})
  inFlight: sum(millstream_ingest_requests_in_flight{%s})
paths: [/v1]
environment:
  MILLSTREAM_AUTH: {{ .Values.auth | quote }}
next: |-
  Send an event: kubectl port-forward service/%s 8080:80, then POST http://localhost:8080/v1/streams/STREAM/events,
  with a key (millstream keys create) or a token where auth asks for one
{{- end -}}
