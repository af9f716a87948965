{{/* The Job of `score.enabled`: `millstream score` on one table. Its name has a hash of what is asked, as a Job cannot be changed:
another table is another Job, and an upgrade that asks the same starts nothing. */}}
{{- define "serving.score" -}}
{{- $c := dict "root" .root "facts" (.facts | deepCopy) "v" (include "millstream.values" .root | fromJson) -}}
{{- $_ := set $c "name" (include "millstream.name" $c) -}}
{{- $v := $c.v -}}
{{- $s := $v.score -}}
{{- if $s.enabled -}}
{{- range list "loop" "claim" "input" "output" -}}
{{- if not (get $s .) -}}
{{- fail (printf "serving: score.%s is empty: write it, or score.enabled=false" .) -}}
{{- end -}}
{{- end -}}
{{- $args := list "score" $s.loop "--input" $s.input "--output" $s.output "--features" $s.features "--json" -}}
{{- with $s.version }}{{ $args = concat $args (list "--version" .) }}{{ end -}}
{{- /* What a Job asks: Kafka for the champion, the packages, and the lake for --features lookup. */ -}}
{{- $_ := unset $c.facts "valkey" -}}
{{- $_ := set $c.facts "lake" (eq $s.features "lookup") -}}
{{- $_ := set $v "settings" dict -}}
{{- $_ := set $v "schemaRegistry" dict -}}
{{- $_ := set $v "grpc" dict -}}
{{- $name := printf "%s-score-%s" $c.name (list $args $s.claim $s.run | toJson | sha256sum | trunc 8) -}}
{{- $_ := set $c "workload" (dict "name" $name "component" "score" "values" $s "facts" dict) -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "millstream.workload.metadata" $c | nindent 2 }}
spec:
  backoffLimit: 2
  activeDeadlineSeconds: {{ int $s.deadlineSeconds }}
  # A pod that a node gave up is no failed try.
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions: [{ type: DisruptionTarget, status: "True" }]
  template:
    metadata:
      labels:
        {{- include "millstream.workload.selector" $c | nindent 8 }}
        {{- if $v.istio.enabled }}
        # Its proxy would not end with it.
        sidecar.istio.io/inject: "false"
        {{- end }}
        {{- with $v.pod.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $v.pod.annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ $v.serviceAccount.name | default $c.name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      # A stopped job leaves no half of a table: it has this long to take it away.
      terminationGracePeriodSeconds: 30
      {{- with $v.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      {{- with $v.pod.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        {{- include "millstream.podsecurity" $c | nindent 8 }}
      {{- with $v.pod.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.pod.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.pod.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: score
          image: {{ include "millstream.image" $c }}
          {{- with $v.image.pullPolicy }}
          imagePullPolicy: {{ . }}
          {{- end }}
          args:
            {{- toYaml $args | nindent 12 }}
          env:
            {{- include "millstream.env" $c | nindent 12 }}
          {{- if $c.facts.lake }}
          {{- with $v.objectStore.secretName }}
          envFrom:
            - secretRef: { name: {{ . }} }
          {{- end }}
          {{- end }}
          resources:
            {{- toYaml $s.resources | nindent 12 }}
          securityContext:
            {{- include "millstream.security" $c | nindent 12 }}
          volumeMounts:
            - { name: tmp, mountPath: /tmp }
            - { name: tables, mountPath: /tables }
            {{- include "millstream.project.mounts" $c | nindent 12 }}
            - { name: shared, mountPath: /shared, readOnly: true }
      volumes:
        - { name: tmp, emptyDir: { sizeLimit: 128Mi } }
        - { name: tables, persistentVolumeClaim: { claimName: {{ $s.claim }} } }
        {{- include "millstream.project.volume" $c | nindent 8 }}
        - { name: shared, persistentVolumeClaim: { claimName: {{ $v.shared.claim }}, readOnly: true } }
{{- end -}}
{{- end -}}
