{{/* A file's key in the ConfigMap, where a path cannot stand. */}}
{{- define "millstream.project.key" -}}
{{ printf "%s-%s" (sha256sum . | trunc 8) (base .) }}
{{- end -}}

{{- define "millstream.project" -}}
{{- with .v.project.files }}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "millstream.metadata" (merge (dict "name" (printf "%s-project" $.name)) $) | nindent 2 }}
data:
  {{- range $path, $text := . }}
  # {{ $path }}
  {{ include "millstream.project.key" $path }}: {{ $text | toJson }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Each file by itself: in a ConfigMap that is mounted whole lie hidden folders in which Feast finds each file once more. */}}
{{/* The ConfigMap with loops that the trainer writes from MillstreamLoops; empty where they are the project's own files. */}}
{{- define "millstream.project.loops" -}}
{{- $own := ternary (printf "%s-loops" .name) "" (dig "loops" "enabled" false .v) -}}
{{ .v.project.loops | default $own }}
{{- end -}}

{{- define "millstream.project.mounts" -}}
{{- if .v.project.files -}}
{{- range $path, $_ := .v.project.files }}
- { name: project, mountPath: /project/{{ $path }}, subPath: {{ include "millstream.project.key" $path }}, readOnly: true }
{{- end }}
{{- else -}}
- { name: project, mountPath: /project, readOnly: true }
{{- end -}}
{{- if include "millstream.project.loops" . }}
- { name: loops, mountPath: /project/loops, readOnly: true }
{{- end -}}
{{- end -}}

{{- define "millstream.project.volume" -}}
{{- $p := .v.project -}}
{{- if $p.files -}}
- { name: project, configMap: { name: {{ .name }}-project } }
{{- else if $p.claim -}}
- { name: project, persistentVolumeClaim: { claimName: {{ $p.claim }}, readOnly: true } }
{{- else -}}
- { name: project, image: { reference: {{ $p.image | quote }} } }
{{- end -}}
{{- end -}}
