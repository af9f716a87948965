{{/* Everything that a chart installs. Each template below gets one dict `c`:
  root       what Helm gives the chart
  v          its values, with those of `global` where it has none of its own
  facts      what its _facts.tpl says
  name       of its objects
  workload   of one Deployment: its name, component, values and facts
*/}}
{{- define "millstream.objects" -}}
{{- $c := dict "root" .root "facts" .facts "v" (include "millstream.values" .root | fromJson) -}}
{{- $_ := set $c "name" (include "millstream.name" $c) -}}
{{- $workloads := list (dict "name" $c.name "component" .root.Chart.Name "values" $c.v "facts" .facts) -}}
{{- if .facts.scorer -}}
{{- $scorer := dict "name" (printf "%s-scorer" $c.name) "component" "scorer" "values" $c.v.scorer "facts" (merge .facts.scorer (dict "many" true)) -}}
{{- $workloads = append $workloads $scorer -}}
{{- end -}}
{{- include "millstream.checks" $c -}}
{{- include "millstream.cluster.checks" $c -}}
{{- $all := list "serviceaccount" "project" "networkpolicy" "ingress" "httproute" "istio" "servicemonitor" "prometheusrule" "dashboards" "externalsecret" "training" "loops" "test" -}}
{{- range $all }}
{{- with include (printf "millstream.%s" .) $c | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- range $workload := $workloads -}}
{{- $w := merge (dict "workload" $workload) $c -}}
{{- include "millstream.workload.checks" $w -}}
{{- range list "service" "deployment" "hpa" "triggerauthentication" "scaledobject" "pdb" "vpa" }}
{{- with include (printf "millstream.%s" .) $w | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The chart's values, filled up from `global`: what both have is two levels deep. Of what excludes each other, a chart that
says one takes none of the others. As JSON. */}}
{{- define "millstream.values" -}}
{{- $own := deepCopy .Values.AsMap -}}
{{- $either := dict "valkey" (list "url" "secretName") "project" (list "files" "claim" "image") -}}
{{- range $group, $shared := (get $own "global" | default dict) -}}
{{- if and (kindIs "map" $shared) (kindIs "map" (get $own $group)) -}}
{{- $said := false -}}
{{- range (get $either $group | default list) -}}{{- if get (get $own $group) . -}}{{- $said = true -}}{{- end -}}{{- end -}}
{{- range $key, $value := $shared -}}
{{- $taken := and $said (has $key (get $either $group | default list)) -}}
{{- if and (not $taken) (hasKey (get $own $group) $key) (empty (get (get $own $group) $key)) -}}
{{- $_ := set (get $own $group) $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $own | toJson -}}
{{- end -}}

{{/* The release's name, with the chart's where it is not in it. 40 characters, so that what is put behind fits 63. */}}
{{- define "millstream.name" -}}
{{- $chart := .root.Chart.Name -}}
{{- $release := .root.Release.Name -}}
{{- if .v.nameOverride -}}
{{ .v.nameOverride }}
{{- else if contains $chart $release -}}
{{ $release | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" ($release | trunc (int (sub 39 (len $chart))) | trimSuffix "-") $chart }}
{{- end -}}
{{- end -}}

{{/* Of every object. */}}
{{- define "millstream.labels" -}}
{{ include "millstream.selector" . }}
app.kubernetes.io/part-of: millstream
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Never changes: a Deployment's selector cannot. */}}
{{- define "millstream.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "millstream.workload.selector" -}}
{{ include "millstream.selector" . }}
app.kubernetes.io/component: {{ .workload.component }}
{{- end -}}

{{/* `in`: where not in the release's namespace. */}}
{{- define "millstream.metadata" -}}
name: {{ .name }}
namespace: {{ .in | default .root.Release.Namespace }}
labels:
  {{- include "millstream.labels" . | nindent 2 }}
{{- end -}}

{{- define "millstream.workload.metadata" -}}
name: {{ .workload.name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "millstream.labels" . | nindent 2 }}
  app.kubernetes.io/component: {{ .workload.component }}
{{- end -}}

{{/* A value as the environment has it: YAML's numbers come as floats, and 1000000 would be 1e+06. */}}
{{- define "millstream.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}
