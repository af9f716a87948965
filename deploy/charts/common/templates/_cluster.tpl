{{/* What the cluster does not know is said before anything is installed. Helm's own message names neither the value nor what to
install. Only where a cluster was asked: `helm template` and `helm lint` know a list of their own, which has no apiregistration. */}}
{{- define "millstream.cluster.checks" -}}
{{- $known := .root.Capabilities.APIVersions -}}
{{- if $known.Has "apiregistration.k8s.io/v1" -}}
{{- $v := .v -}}
{{- $scorer := dig "scorer" "enabled" false $v -}}
{{- $executor := dig "training" "executor" "process" $v -}}
{{- $kinds := list
  (list "keda.enabled" (dig "keda" "enabled" false $v) "keda.sh/v1alpha1" "ScaledObject" "KEDA")
  (list "scorer.keda.enabled" (and $scorer (dig "scorer" "keda" "enabled" false $v)) "keda.sh/v1alpha1" "ScaledObject" "KEDA")
  (list "vpa.enabled" $v.vpa.enabled "autoscaling.k8s.io/v1" "VerticalPodAutoscaler" "the Vertical Pod Autoscaler")
  (list "scorer.vpa.enabled" (and $scorer (dig "scorer" "vpa" "enabled" false $v)) "autoscaling.k8s.io/v1" "VerticalPodAutoscaler" "the Vertical Pod Autoscaler")
  (list "serviceMonitor.enabled" $v.serviceMonitor.enabled "monitoring.coreos.com/v1" "ServiceMonitor" "the Prometheus operator")
  (list "prometheusRule.enabled" $v.prometheusRule.enabled "monitoring.coreos.com/v1" "PrometheusRule" "the Prometheus operator")
  (list "httpRoute.enabled" $v.httpRoute.enabled "gateway.networking.k8s.io/v1" "HTTPRoute" "the CRDs of Gateway API")
  (list "istio.enabled" $v.istio.enabled "security.istio.io/v1" "AuthorizationPolicy" "Istio")
  (list "training.executor" (eq $executor "trainjob") "trainer.kubeflow.org/v1alpha1" "TrainJob" "Kubeflow Trainer")
  (list "training.executor" (eq $executor "rayjob") "ray.io/v1" "RayJob" "KubeRay")
  (list "training.executor" (eq $executor "workflow") "argoproj.io/v1alpha1" "Workflow" "Argo Workflows")
  (list "training.executor" (eq $executor "keda") "keda.sh/v1alpha1" "ScaledJob" "KEDA")
  (list "externalSecret.enabled" $v.externalSecret.enabled "external-secrets.io/v1" "ExternalSecret" "External Secrets")
-}}
{{- range $kinds -}}
{{- $value := index . 0 -}}
{{- $api := index . 2 -}}
{{- $kind := index . 3 -}}
{{- if and (index . 1) (not ($known.Has (printf "%s/%s" $api $kind))) -}}
{{- $is := ternary $executor "true" (eq $value "training.executor") -}}
{{- $or := ternary "kubernetes" "false" (eq $value "training.executor") -}}
{{- fail (printf "%s: %s is %s, and this cluster does not know the kind %s of %s: install %s first, or write %s=%s" $.root.Chart.Name $value $is $kind $api (index . 4) $value $or) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
