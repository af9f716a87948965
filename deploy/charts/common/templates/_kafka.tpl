{{/* How Kafka is entered: everything secret by reference. `.v.kafka` has what the knobs kafka.* say. */}}
{{- define "millstream.kafka.tls" -}}
{{ ternary "yes" "" (hasSuffix "ssl" .v.kafka.security) }}
{{- end -}}

{{- define "millstream.kafka.sasl" -}}
{{- if hasPrefix "sasl" .v.kafka.security }}{{ .v.kafka.mechanism | default "SCRAM-SHA-512" }}{{ end -}}
{{- end -}}

{{- define "millstream.kafka.stem" -}}
{{ .v.kafka.clientKeys | default "tls" }}
{{- end -}}

{{- define "millstream.kafka.env" -}}
{{- $k := .v.kafka -}}
{{- if not (has $k.security (list "" "plaintext")) }}
- name: MILLSTREAM_KAFKA_SECURITY
  value: {{ $k.security }}
{{- end }}
{{- with include "millstream.kafka.sasl" . }}
- name: MILLSTREAM_KAFKA_MECHANISM
  value: {{ . }}
- name: MILLSTREAM_KAFKA_USER
  value: {{ $k.user | quote }}
- name: MILLSTREAM_KAFKA_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $k.secretName }}, key: password } }
{{- end }}
{{- if include "millstream.kafka.tls" . }}
{{- if $k.caSecretName }}
- name: MILLSTREAM_KAFKA_CA
  value: /kafka/ca/ca.crt
{{- end }}
{{- if $k.clientSecretName }}
- name: MILLSTREAM_KAFKA_CERT
  value: /kafka/client/{{ include "millstream.kafka.stem" . }}.crt
- name: MILLSTREAM_KAFKA_KEY
  value: /kafka/client/{{ include "millstream.kafka.stem" . }}.key
{{- end }}
{{- end }}
{{- end -}}

{{- define "millstream.kafka.mounts" -}}
{{- if include "millstream.kafka.tls" . -}}
{{- range list "ca" "client" }}
{{- if get $.v.kafka (printf "%sSecretName" .) }}
- { name: kafka-{{ . }}, mountPath: /kafka/{{ . }}, readOnly: true }
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "millstream.kafka.volumes" -}}
{{- if include "millstream.kafka.tls" . -}}
{{- range $which := list "ca" "client" }}
{{- with get $.v.kafka (printf "%sSecretName" $which) }}
- { name: kafka-{{ $which }}, secret: { secretName: {{ . }} } }
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* What does not go together, given the chart's name and `.at`, where the knobs stand. */}}
{{- define "millstream.kafka.checks" -}}
{{- $k := .v.kafka -}}
{{- $says := printf "%s: %skafka" .chart .at -}}
{{- $set := list -}}
{{- range list "mechanism" "user" "secretName" "caSecretName" "clientSecretName" -}}{{- if get $k . -}}{{- $set = append $set . -}}{{- end -}}{{- end -}}
{{- if and (not $k.security) $set -}}
{{- fail (printf "%s.%s is set and kafka.security is empty, which is plain text: write kafka.security=sasl_ssl (TLS and a password), ssl or sasl_plaintext" $says (first $set)) -}}
{{- end -}}
{{- if hasPrefix "sasl" $k.security -}}
{{- if not $k.user -}}
{{- fail (printf "%s.security=%s needs a user: write kafka.user=NAME, whom the brokers know" $says $k.security) -}}
{{- end -}}
{{- if not $k.secretName -}}
{{- fail (printf "%s.security=%s needs a password: put it into a Secret (kubectl create secret generic kafka-user --from-literal=password=...) and write its name as kafka.secretName" $says $k.security) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What KEDA is given, which asks Kafka itself: of the pods that it scales, whose `container` says who they are. */}}
{{- define "millstream.kafka.keda" -}}
{{- $k := .v.kafka -}}
{{- if include "millstream.kafka.sasl" . }}
env:
  - { parameter: username, name: MILLSTREAM_KAFKA_USER, containerName: {{ .container }} }
{{- end }}
{{- $tls := include "millstream.kafka.tls" . }}
{{- if or (include "millstream.kafka.sasl" .) $k.caSecretName $k.clientSecretName }}
secretTargetRef:
  {{- if include "millstream.kafka.sasl" . }}
  - { parameter: password, name: {{ $k.secretName }}, key: password }
  {{- end }}
  {{- if and $tls $k.caSecretName }}
  - { parameter: ca, name: {{ $k.caSecretName }}, key: ca.crt }
  {{- end }}
  {{- if and $tls $k.clientSecretName }}
  - { parameter: cert, name: {{ $k.clientSecretName }}, key: {{ include "millstream.kafka.stem" . }}.crt }
  - { parameter: key, name: {{ $k.clientSecretName }}, key: {{ include "millstream.kafka.stem" . }}.key }
  {{- end }}
{{- end }}
{{- end -}}

{{- define "millstream.triggerauthentication" -}}
{{- $keda := .workload.values.keda | default dict -}}
{{- $k := .v.kafka -}}
{{- if and $keda.enabled .workload.facts.groups (include "millstream.kafka.secured" .) }}
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  {{- include "millstream.workload.metadata" . | nindent 2 }}
spec:
  {{- include "millstream.kafka.keda" (merge (dict "container" .root.Chart.Name) .) | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Whether there is anything that KEDA has to be given. */}}
{{- define "millstream.kafka.secured" -}}
{{- $k := .v.kafka -}}
{{- if include "millstream.kafka.sasl" . }}yes{{ else if and (include "millstream.kafka.tls" .) (or $k.caSecretName $k.clientSecretName) }}yes{{ end -}}
{{- end -}}
