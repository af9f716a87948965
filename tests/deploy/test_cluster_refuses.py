"""What only a cluster can know to be wrong: it says so, with the value to change, before or beside the release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.testing.waiting import wait_until

from .charts import CHARTS, Refused, template
from .control_plane import ControlPlane
from .kubectl import Helm, Kubectl, Said

VPA = "crd/verticalpodautoscalers.autoscaling.k8s.io"


@pytest.fixture
def no_vpa(plane: ControlPlane) -> Iterator[None]:
    """A cluster where nobody installed it."""
    plane.kubectl("delete", VPA, "--wait")
    yield
    plane.install_crds()


def refused(releases: Helm, chart: str, values: str, *more: str) -> str:
    with pytest.raises(Said) as said:
        releases.install(chart, values, *more, wait=5)
    return str(said.value)


@pytest.mark.usefixtures("no_vpa")
def test_a_kind_that_the_cluster_does_not_know(releases: Helm, kubectl: Kubectl) -> None:
    said = refused(releases, "ingest", "minimal-values.yaml", "--set", "vpa.enabled=true")

    assert (
        "ingest: vpa.enabled is true, and this cluster does not know the kind VerticalPodAutoscaler of "
        "autoscaling.k8s.io/v1: install the Vertical Pod Autoscaler first, or write vpa.enabled=false"
    ) in said
    assert kubectl.names("deployments.apps") == set(), "nothing was installed"


@pytest.mark.parametrize(
    ("chart", "values", "known", "said"),
    [
        (
            "features",
            "keda-values.yaml",
            [],
            "features: keda.enabled is true, and this cluster does not know the kind ScaledObject of keda.sh/v1alpha1: "
            "install KEDA first, or write keda.enabled=false",
        ),
        (
            "serving",
            "everything-values.yaml",
            ["keda.sh/v1alpha1/ScaledObject", "autoscaling.k8s.io/v1/VerticalPodAutoscaler"],
            "serving: serviceMonitor.enabled is true, and this cluster does not know the kind ServiceMonitor of "
            "monitoring.coreos.com/v1: install the Prometheus operator first, or write serviceMonitor.enabled=false",
        ),
        (
            "trainer",
            "trainjob-values.yaml",
            [],
            "trainer: training.executor is trainjob, and this cluster does not know the kind TrainJob of "
            "trainer.kubeflow.org/v1alpha1: install Kubeflow Trainer first, or write training.executor=kubernetes",
        ),
    ],
)
def test_a_renderer_that_knows_the_cluster_says_it_too(
    chart: str, values: str, known: list[str], said: str, helm: Path
) -> None:
    """As Argo CD renders: with what its cluster has. Nothing is said where no cluster was asked."""
    cluster = ("apiregistration.k8s.io/v1", *known)
    options = [part for version in cluster for part in ("--api-versions", version)]

    with pytest.raises(Refused) as refusal:
        template(helm, chart, values, options=tuple(options))

    assert said in str(refusal.value)


@pytest.mark.usefixtures("keda")
def test_an_hpa_of_somebody_on_what_keda_shall_scale(releases: Helm, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=HPA)

    said = refused(releases, "features", "keda-values.yaml")

    assert "the workload 'features' of type 'apps/v1.Deployment' is already managed by the hpa 'by-hand'" in said


def test_a_claim_that_is_not_there(releases: Helm, kubectl: Kubectl) -> None:
    said = refused(releases, "drift", "minimal-values.yaml")

    assert "drift" in said
    assert 'persistentvolumeclaim "millstream-shared" not found' in waiting(kubectl)


def test_a_node_that_is_not_there(releases: Helm, kubectl: Kubectl) -> None:
    with pytest.raises(Said):
        releases.install("ingest", "minimal-values.yaml", "--set", "pod.nodeSelector.gpu=many", wait=5)

    assert "didn't match Pod's node affinity/selector" in waiting(kubectl)


def test_a_job_that_is_never_scheduled_holds_no_service_up(releases: Helm, kubectl: Kubectl) -> None:
    """The topics' Job waits for its claim; what is installed beside it stands, and says what it waits for at /readyz."""
    releases(
        *("install", "mill", CHARTS / "millstream", "-f", CHARTS / "millstream" / "ci" / "everything-values.yaml"),
        *("--set", "features.keda.enabled=false,claim.create=false"),
    )

    assert 'persistentvolumeclaim "parcels" not found' in waiting(kubectl, "app.kubernetes.io/component=topics")
    (job,) = kubectl.get("jobs")["items"]
    assert job["spec"]["backoffLimit"] == 300, "a day of tries"
    assert job["status"].get("failed", 0) == 0
    assert len(kubectl.names("deployments.apps")) == 5  # drift is off, serving has a scorer


def test_an_account_that_is_not_there(releases: Helm, kubectl: Kubectl) -> None:
    with pytest.raises(Said):
        releases.install("ingest", "minimal-values.yaml", "--set", "serviceAccount.name=mill-writer", wait=5)

    def said() -> str:
        return json.dumps(kubectl.get("replicasets")["items"][0]["status"].get("conditions", []))

    wait_until(
        lambda: 'serviceaccount \\"mill-writer\\" not found' in said(), within=30, what="the ReplicaSet to say so"
    )


def test_a_namespace_that_has_no_room_left(releases: Helm, kubectl: Kubectl) -> None:
    kubectl("create", "quota", "small", "--hard=requests.memory=100Mi")
    with pytest.raises(Said):
        releases.install("ingest", "minimal-values.yaml", wait=5)

    said = json.dumps(kubectl.get("replicasets")["items"][0]["status"]["conditions"])
    assert "exceeded quota: small, requested: requests.memory=" in said


def test_the_release_that_failed_is_mended_by_an_upgrade(releases: Helm, kubectl: Kubectl) -> None:
    with pytest.raises(Said):
        releases.install("ingest", "minimal-values.yaml", "--set", "pod.nodeSelector.gpu=many", wait=5)

    releases.upgrade("ingest", "minimal-values.yaml")

    (found,) = kubectl.get("deployments")["items"]
    assert found["status"]["readyReplicas"] == found["spec"]["replicas"]


def waiting(kubectl: Kubectl, selector: str = "") -> str:
    """Why the scheduler has no place for the pods of `selector`."""

    def reasons() -> list[str]:
        pods = kubectl.get("pods", "--selector", selector)["items"]
        conditions = [one for pod in pods for one in pod["status"].get("conditions", [])]
        return [one["message"] for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False"]

    wait_until(lambda: bool(reasons()), within=30, what="the scheduler to say why", every=0.5)
    return "\n".join(reasons())


HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: by-hand}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: features}
  maxReplicas: 3
"""
