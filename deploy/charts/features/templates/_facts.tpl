{{/* What the common templates have to know about features. */}}
{{- define "features.facts" -}}
many: true
valkey: needed
lake: true
shared: write
groups: {{ get (dict "all" (list "features-tiles" "features-lake") "tiles" (list "features-tiles") "lake" (list "features-lake") "skew" (list "features-skew")) .Values.part | toJson }}
environment:
  MILLSTREAM_PART: {{ .Values.part }}
paths: [/v1, /get-online-features]
next: |-
  See the windows: kubectl port-forward service/%s 8080:80, then GET http://localhost:8080/v1/views
{{- end -}}
