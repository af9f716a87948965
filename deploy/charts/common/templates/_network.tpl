{{/* Of each Deployment. The scorer's is for its metrics alone: nobody asks it over HTTP. */}}
{{- define "millstream.service" -}}
{{- $asked := ne .workload.component "scorer" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "millstream.workload.metadata" . | nindent 2 }}
  {{- with .v.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if not $asked }}
  clusterIP: None
  {{- end }}
  selector:
    {{- include "millstream.workload.selector" . | nindent 4 }}
  ports:
    - { name: http, port: {{ ternary 80 8080 $asked }}, targetPort: http, appProtocol: http }
    {{- if and $asked (dig "grpc" "enabled" false .v) }}
    - { name: grpc, port: 9090, targetPort: grpc, appProtocol: kubernetes.io/h2c }
    {{- end }}
{{- end -}}

{{- define "millstream.dns" -}}
- to:
    - namespaceSelector: {}
      podSelector:
        matchExpressions:
          - { key: k8s-app, operator: In, values: [kube-dns, coredns] }
  ports:
    - { port: 53, protocol: UDP }
    - { port: 53, protocol: TCP }
{{- end -}}

{{- define "millstream.networkpolicy" -}}
{{- $n := .v.networkPolicy -}}
{{- if $n.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "millstream.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector: {}
        {{- with $n.from }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - { port: http, protocol: TCP }
        {{- if dig "grpc" "enabled" false .v }}
        - { port: grpc, protocol: TCP }
        {{- end }}
  egress:
    {{- include "millstream.dns" . | nindent 4 }}
    - ports:
        {{- range include "millstream.ports" . | fromJsonArray }}
        - { port: {{ int . }}, protocol: TCP }
        {{- end }}
    {{- if .facts.asks }}
    # The API server, which no selector finds.
    - ports:
        - { port: 443, protocol: TCP }
        - { port: 6443, protocol: TCP }
    {{- end }}
    # The pod of helm test.
    - to:
        - podSelector:
            matchLabels:
              {{- include "millstream.selector" . | nindent 14 }}
      ports:
        - { port: 8080, protocol: TCP }
    {{- with $n.to }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "millstream.ingress" -}}
{{- $i := .v.ingress -}}
{{- if $i.enabled }}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
  {{- with $i.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $i.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with $i.tlsSecretName }}
  tls:
    - { hosts: [{{ $i.host | quote }}], secretName: {{ . }} }
  {{- end }}
  rules:
    - host: {{ $i.host | quote }}
      http:
        paths:
          {{- range .facts.paths }}
          - path: {{ . }}
            pathType: Prefix
            backend: { service: { name: {{ $.name }}, port: { name: http } } }
          {{- end }}
{{- end }}
{{- end -}}

{{- define "millstream.httproute" -}}
{{- $r := .v.httpRoute -}}
{{- if $r.enabled }}
{{- $parts := splitList "/" $r.gateway }}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
spec:
  parentRefs:
    - name: {{ last $parts }}
      {{- if eq (len $parts) 2 }}
      namespace: {{ first $parts }}
      {{- end }}
  {{- with $r.hostnames }}
  hostnames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches:
        {{- range .facts.paths }}
        - path: { type: PathPrefix, value: {{ . }} }
        {{- end }}
      backendRefs:
        - { name: {{ .name }}, port: 80 }
{{- end }}
{{- end -}}

{{- define "millstream.istio" -}}
{{- $i := .v.istio -}}
{{- if $i.enabled }}
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "millstream.selector" . | nindent 6 }}
  mtls: { mode: STRICT }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  {{- include "millstream.metadata" . | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "millstream.selector" . | nindent 6 }}
  action: ALLOW
  rules:
    - from:
        - source:
            principals:
              {{- toYaml $i.principals | nindent 14 }}
{{- end }}
{{- end -}}
