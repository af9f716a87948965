{{/* What the common templates have to know about drift. A second replica would take partitions from the first, and both would
judge nothing: hence no autoscaler, and the old pod goes before the new one comes. */}}
{{- define "drift.facts" -}}
many: false
valkey: needed
shared: read
paths: [/v1]
next: |-
  See the last windows: kubectl port-forward service/%s 8080:80, then GET http://localhost:8080/v1/loops/LOOP/windows
{{- end -}}
