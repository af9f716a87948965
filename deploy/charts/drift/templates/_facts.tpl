{{/* What the common templates have to know about drift. A replica judges the loops of whole shares, each a consumer group, as
millstream_drift/subscribers.py names them. All pods go before new ones come: a release, or another number of shares, must not
judge a loop beside the last one's. */}}
{{- define "drift.facts" -}}
many: true
recreate: true
valkey: needed
shared: read
shares: {{ int .Values.shares }}
groups:
{{- if eq (int .Values.shares) 1 }}
  - drift
{{- else }}
{{- range untilStep 1 (int (add .Values.shares 1)) 1 }}
  - drift-{{ . }}
{{- end }}
{{- end }}
environment:
  MILLSTREAM_SHARES: {{ .Values.shares | toString | quote }}
paths: [/v1]
next: |-
  See the last windows: kubectl port-forward service/%s 8080:80, then GET http://localhost:8080/v1/loops/LOOP/windows
{{- end -}}
