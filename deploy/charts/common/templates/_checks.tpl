{{/* What can be seen to be wrong before anything is installed: names the value, and says what to write. */}}
{{- define "millstream.checks" -}}
{{- $v := .v -}}
{{- $chart := .root.Chart.Name -}}
{{- if not $v.kafka.bootstrap -}}
{{- fail (printf "%s: kafka.bootstrap is empty: write the bootstrap servers, as kafka.bootstrap=kafka-bootstrap.kafka:9092" $chart) -}}
{{- end -}}
{{- range splitList "," $v.kafka.bootstrap -}}
{{- if not (regexMatch "^[^\\s:/@]+:[0-9]+$" .) -}}
{{- fail (printf "%s: kafka.bootstrap has %q, which is no host:port: write the bootstrap servers as kafka-0.kafka:9092,kafka-1.kafka:9092" $chart .) -}}
{{- end -}}
{{- end -}}
{{- include "millstream.kafka.checks" (dict "chart" $chart "at" "" "v" $v) -}}
{{- if eq $chart "ingest" -}}
{{- if not $v.auth -}}
{{- fail "ingest: auth is empty, and the pods are open to their network: write auth=keys (millstream keys create makes one), jwt, \"keys,jwt\", or \"off\" where something else keeps strangers out" -}}
{{- end -}}
{{- if contains "jwt" $v.auth -}}
{{- range list "jwt_issuer" "jwt_audience" "jwt_jwks" -}}
{{- if not (get $v.settings .) -}}
{{- fail (printf "ingest: auth=%s, and settings.%s is empty: write it, or auth=keys" $v.auth .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .facts.valkey -}}
{{- if contains "@" $v.valkey.url -}}
{{- fail (printf "%s: valkey.url carries a password: put the address into a Secret (kubectl create secret generic valkey --from-literal=url=...) and write its name as valkey.secretName" $chart) -}}
{{- end -}}
{{- if and $v.valkey.url $v.valkey.secretName -}}
{{- fail (printf "%s: valkey.url and valkey.secretName are both set: leave one of them empty" $chart) -}}
{{- end -}}
{{- if and (eq .facts.valkey "needed") (not $v.valkey.url) (not $v.valkey.secretName) -}}
{{- fail (printf "%s: valkey.url and valkey.secretName are empty: write valkey.url=redis://HOST:6379/0, or as valkey.secretName the name of a Secret whose key `url` has it" $chart) -}}
{{- end -}}
{{- end -}}
{{- $sources := 0 -}}
{{- range list "files" "claim" "image" -}}{{- if get $v.project . -}}{{- $sources = add1 $sources -}}{{- end -}}{{- end -}}
{{- if eq (int $sources) 0 -}}
{{- fail (printf "%s: no project: add `-f project-values.yaml`, made by `python deploy/project_values.py FOLDER`, or write project.claim or project.image" $chart) -}}
{{- end -}}
{{- if gt (int $sources) 1 -}}
{{- fail (printf "%s: more than one of project.files, project.claim and project.image is set: keep one" $chart) -}}
{{- end -}}
{{- if include "millstream.project.loops" . -}}
{{- range $path, $_ := $v.project.files -}}
{{- if hasPrefix "loops/" $path -}}
{{- fail (printf "%s: project.files has %s, and loops are MillstreamLoops here: make the files by `python deploy/project_values.py --without-loops FOLDER`, the loops by `python deploy/loop_resources.py FOLDER`" $chart $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .facts.shared (not $v.shared.claim) (not (and (eq $chart "features") $v.lake.url)) -}}
{{- $why := ternary "the lake is there, or lake.url=s3://BUCKET/PREFIX" "model packages are handed over there" (eq $chart "features") -}}
{{- fail (printf "%s: shared.claim is empty: name a PersistentVolumeClaim that several nodes can mount (ReadWriteMany); %s" $chart $why) -}}
{{- end -}}
{{- if and .facts.runs $v.training.quota (eq (include "millstream.training.namespace" .) .root.Release.Namespace) -}}
{{- fail (printf "%s: training.quota would bound everything in %s: name a namespace for the Jobs alone as training.namespace, or leave training.quota empty" $chart .root.Release.Namespace) -}}
{{- end -}}
{{- if and .facts.jobs (eq $v.training.executor "rayjob") (not $v.training.image) -}}
{{- fail (printf "%s: training.executor=rayjob, and training.image is empty: the trainer's image has no Ray; name one that has both" $chart) -}}
{{- end -}}
{{- if and .facts.runs (not .facts.jobs) $v.training.policy.enabled -}}
{{- fail (printf "%s: training.executor=keda and training.policy.enabled=true: the trainer makes no Jobs, so that there is nothing to bound; write training.policy.enabled=false" $chart) -}}
{{- end -}}
{{- $drain := $v.settings.drain_timeout | default 20 -}}
{{- $needs := add 15 (mul 2 (int $drain)) -}}
{{- if lt (int $v.terminationGracePeriodSeconds) (int $needs) -}}
{{- fail (printf "%s: terminationGracePeriodSeconds=%d is shorter than a stop may take: write %d (5 s, twice drain_timeout, 10 s), or shorten settings.drain_timeout=%d" $chart (int $v.terminationGracePeriodSeconds) (int $needs) (int $drain)) -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail (printf "%s: ingress.host is empty: write the host name, or ingress.enabled=false" $chart) -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.gateway) -}}
{{- fail (printf "%s: httpRoute.gateway is empty: write the Gateway as NAME or NAMESPACE/NAME, or httpRoute.enabled=false" $chart) -}}
{{- end -}}
{{- if and $v.istio.enabled (not $v.istio.principals) -}}
{{- fail (printf "%s: istio.principals is empty, so nobody could call: write who may, as cluster.local/ns/NAMESPACE/sa/NAME, or istio.enabled=false" $chart) -}}
{{- end -}}
{{- if $v.externalSecret.enabled -}}
{{- range list "name" "store" "keys" -}}
{{- if not (get $v.externalSecret .) -}}
{{- fail (printf "%s: externalSecret.%s is empty: write it, or externalSecret.enabled=false" $chart .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "millstream.workload.checks" -}}
{{- $chart := .root.Chart.Name -}}
{{- $at := ternary "scorer." "" (eq .workload.component "scorer") -}}
{{- $hpa := .workload.values.hpa | default dict -}}
{{- $keda := .workload.values.keda | default dict -}}
{{- if and $hpa.enabled $keda.enabled -}}
{{- fail (printf "%s: %shpa.enabled and %skeda.enabled are both true, and KEDA makes an HPA of its own: two would pull at the replicas; set one to false" $chart $at $at) -}}
{{- end -}}
{{- range $kind, $scaler := dict "hpa" $hpa "keda" $keda -}}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- fail (printf "%s: %s%s.minReplicas=%d is above %s%s.maxReplicas=%d: lower the one or raise the other" $chart $at $kind (int $scaler.minReplicas) $at $kind (int $scaler.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and $keda.enabled .workload.facts.groups -}}
{{- if not $keda.topics -}}
{{- fail (printf "%s: %skeda.topics is empty: write the streams whose lag counts, as - {name: STREAM, partitions: 6}" $chart $at) -}}
{{- end -}}
{{- $most := 0 -}}
{{- range $keda.topics -}}{{- $most = max $most (int .partitions) -}}{{- end -}}
{{- $counted := list -}}
{{- range $keda.topics -}}{{- $counted = concat $counted (.groups | default $.workload.facts.groups) -}}{{- end -}}
{{- range $.workload.facts.groups -}}
{{- if not (has . $counted) -}}
{{- fail (printf "%s: no topic of %skeda.topics counts for the group %s, so nothing would scale by it: name it in the `groups` of one, or choose another part" $chart $at .) -}}
{{- end -}}
{{- end -}}
{{- if and .workload.facts.shares (gt (int $keda.maxReplicas) (int .workload.facts.shares)) -}}
{{- fail (printf "%s: keda.maxReplicas=%d is above shares=%d, and one replica judges a share whole: write keda.maxReplicas=%d, or more shares where there are as many loops" $chart (int $keda.maxReplicas) (int .workload.facts.shares) (int .workload.facts.shares)) -}}
{{- end -}}
{{- if and (not .workload.facts.shares) (gt (int $keda.maxReplicas) (int $most)) -}}
{{- fail (printf "%s: %skeda.maxReplicas=%d is above the %d partitions of the largest topic in %skeda.topics, and a replica without a partition does nothing: write %d, or give the topic more partitions" $chart $at (int $keda.maxReplicas) (int $most) $at (int $most)) -}}
{{- end -}}
{{- end -}}
{{- if and $keda.enabled .workload.facts.load (not $keda.prometheus) -}}
{{- fail (printf "%s: %skeda.prometheus is empty: write the address of the Prometheus that scrapes the pods, as http://prometheus-operated.monitoring:9090" $chart $at) -}}
{{- end -}}
{{- end -}}
