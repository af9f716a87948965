{{/* Pod Security `restricted`; the image's user. */}}
{{- define "millstream.podsecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "millstream.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "millstream.image" -}}
{{- $i := .v.image -}}
{{- $where := ternary (printf "%s/%s" (trimSuffix "/" $i.registry) $i.repository) $i.repository (ne $i.registry "") -}}
{{- if $i.digest -}}
{{ printf "%s@%s" $where $i.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $where ($i.tag | default .root.Chart.AppVersion) | quote }}
{{- end -}}
{{- end -}}

{{/* MILLSTREAM_HOST, _PORT, _PROJECT and _DATA are in the image. */}}
{{- define "millstream.env" -}}
{{- $v := .v -}}
- name: MILLSTREAM_KAFKA
  value: {{ $v.kafka.bootstrap | quote }}
{{- include "millstream.kafka.env" . }}
{{- if .facts.valkey }}
{{- if $v.valkey.secretName }}
- name: MILLSTREAM_VALKEY
  valueFrom: { secretKeyRef: { name: {{ $v.valkey.secretName }}, key: {{ $v.valkey.secretKey | default "url" }} } }
{{- else if $v.valkey.url }}
- name: MILLSTREAM_VALKEY
  value: {{ $v.valkey.url | quote }}
{{- end }}
{{- end }}
{{- if .facts.lake }}
- name: MILLSTREAM_LAKE
  value: {{ $v.lake.url | default "/shared/lake" | quote }}
{{- range $name, $value := $v.objectStore.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- if and .facts.shared (ne .root.Chart.Name "features") }}
- name: MILLSTREAM_PACKAGES
  value: /shared/packages
{{- end }}
{{- if and .facts.mlflow $v.mlflow.url }}
- name: MILLSTREAM_MLFLOW
  value: {{ $v.mlflow.url | quote }}
{{- end }}
{{- if and (dig "grpc" "enabled" false $v) (ne .workload.component "scorer") }}
- name: MILLSTREAM_GRPC_PORT
  value: "9090"
{{- end }}
{{- with $v.schemaRegistry }}
{{- if .url }}
- name: MILLSTREAM_SCHEMA_REGISTRY
  value: {{ .url | quote }}
{{- end }}
{{- if .authSecretName }}
- name: MILLSTREAM_SCHEMA_REGISTRY_AUTH
  valueFrom: { secretKeyRef: { name: {{ .authSecretName }}, key: auth } }
{{- end }}
{{- if .caSecretName }}
- name: MILLSTREAM_SCHEMA_REGISTRY_CA
  value: /registry/ca/ca.crt
{{- end }}
{{- if .clientSecretName }}
- name: MILLSTREAM_SCHEMA_REGISTRY_CERT
  value: /registry/client/tls.crt
- name: MILLSTREAM_SCHEMA_REGISTRY_KEY
  value: /registry/client/tls.key
{{- end }}
{{- end }}
{{- if dig "loops" "enabled" false $v }}
{{- include "millstream.loops.env" . }}
{{- end }}
{{- range $name, $value := .workload.facts.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $value := $v.settings }}
- name: {{ printf "MILLSTREAM_%s" (upper $name) }}
  value: {{ include "millstream.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* The claim that the pods mount. Features has nothing in it but the lake. */}}
{{- define "millstream.shared" -}}
{{- if and .facts.shared (not (and (eq .root.Chart.Name "features") .v.lake.url)) -}}
{{ .v.shared.claim }}
{{- end -}}
{{- end -}}

{{/* Ports of Kafka and Valkey, as a JSON list. */}}
{{- define "millstream.ports" -}}
{{- $ports := list -}}
{{- range splitList "," .v.kafka.bootstrap -}}{{- $ports = append $ports (splitList ":" . | last | int) -}}{{- end -}}
{{- if .facts.valkey -}}{{- $ports = append $ports (int .v.networkPolicy.valkeyPort) -}}{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
