"""Releases on a control plane: installed, upgraded, rolled back, tested and gone, each chart alone and all in one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from millstream.testing.errors import WaitedTooLong
from millstream.testing.waiting import wait_until

from .charts import CHARTS, EXAMPLES, SERVICES
from .control_plane import ControlPlane
from .kubectl import Helm, Kubectl, Said

CLAIM = """
apiVersion: v1
kind: PersistentVolume
metadata: {{name: "{namespace}"}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteMany]
  storageClassName: ""
  hostPath: {{path: /nowhere}}
  claimRef: {{namespace: "{namespace}", name: "{name}"}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: "{name}"}}
spec: {{accessModes: [ReadWriteMany], storageClassName: "", resources: {{requests: {{storage: 1Gi}}}}}}
"""
MANY = ("ingest", "features", "serving")


@pytest.fixture
def claim(kubectl: Kubectl) -> Callable[[str], None]:
    """Makes a bound claim of that name."""

    def make(name: str) -> None:
        kubectl("apply", "-f", "-", given=CLAIM.format(namespace=kubectl.namespace, name=name))

    return make


@pytest.fixture
def kinds(plane: ControlPlane) -> str:
    """Every kind that can stand in a namespace, but records of what happened."""
    listed = plane.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    return ",".join(sorted(set(listed) - {"events", "events.events.k8s.io"} - {n for n in listed if "metrics" in n}))


def deployments(kubectl: Kubectl) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in kubectl.get("deployments")["items"]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chart", SERVICES)
def test_a_service_alone_comes_changes_goes_back_and_leaves_nothing(
    chart: str, releases: Helm, kubectl: Kubectl, kinds: str, claim: Callable[[str], None]
) -> None:
    claim("millstream-shared")
    before = kubectl.names(kinds)

    releases.install(chart, "minimal-values.yaml")

    found = deployments(kubectl)
    assert set(found) == {chart}
    assert ready(found[chart]) == found[chart]["spec"]["replicas"] >= 1

    more = ("--set", "replicas=3") if chart in MANY else ()
    releases.upgrade(chart, "minimal-values.yaml", "--set", "settings.log_level=DEBUG", *more)

    changed = deployments(kubectl)[chart]
    assert {"name": "MILLSTREAM_LOG_LEVEL", "value": "DEBUG"} in environment(changed)
    assert ready(changed) == (3 if chart in MANY else 1)
    assert changed["metadata"]["uid"] == found[chart]["metadata"]["uid"], "upgraded, not made anew"

    releases("rollback", chart, "1", "--wait", "--timeout", "60s")

    back = deployments(kubectl)[chart]
    assert environment(back) == environment(found[chart])
    assert ready(back) == ready(found[chart])
    assert "Succeeded" in releases("test", chart, "--timeout", "60s")

    releases("uninstall", chart, "--wait", "--timeout", "60s")

    gone(kubectl, kinds, before)


@pytest.mark.timeout(300)
def test_all_in_one_release(releases: Helm, kubectl: Kubectl, kinds: str, claim: Callable[[str], None]) -> None:
    claim("millstream-shared")
    before = kubectl.names(kinds)

    releases.install("millstream", "minimal-values.yaml", "--wait-for-jobs", release="mill")

    found = deployments(kubectl)
    assert set(found) == {f"mill-{service}" for service in SERVICES}
    assert all(ready(one) == one["spec"]["replicas"] for one in found.values())
    (topics,) = kubectl.get("jobs")["items"]
    assert topics["status"]["succeeded"] == 1

    releases.upgrade(
        "millstream",
        "minimal-values.yaml",
        "--set",
        "drift.enabled=false,global.kafka.bootstrap=other:9092",
        release="mill",
    )

    assert set(deployments(kubectl)) == {f"mill-{service}" for service in SERVICES if service != "drift"}
    (again,) = kubectl.get("jobs")["items"]
    assert again["metadata"]["name"] != topics["metadata"]["name"], (
        "a Job cannot change: another Kafka makes another one"
    )

    releases("rollback", "mill", "1", "--wait", "--timeout", "60s")

    back = deployments(kubectl)
    assert set(back) == set(found)
    assert all(environment(back[name]) == environment(found[name]) for name in found)

    releases("uninstall", "mill", "--wait", "--timeout", "60s")

    gone(kubectl, kinds, before)


def test_the_claim_of_all_outlives_the_release(releases: Helm, kubectl: Kubectl, plane: ControlPlane) -> None:
    with pytest.raises(Said):
        # Nobody makes volumes here, so nothing that mounts the claim gets ready.
        releases.install("millstream", "everything-values.yaml", "--set", "features.keda.enabled=false", wait=3)
    assert "persistentvolumeclaim/mill-shared" in kubectl.names("persistentvolumeclaims")

    releases("uninstall", "millstream", "--wait", "--timeout", "60s")

    assert kubectl.names("persistentvolumeclaims,deployments.apps") == {"persistentvolumeclaim/mill-shared"}


def test_two_releases_of_one_chart_stand_beside_each_other(
    releases: Helm, kubectl: Kubectl, claim: Callable[[str], None]
) -> None:
    claim("millstream-shared")
    releases.install("serving", "minimal-values.yaml", release="serving-north")
    releases.install("serving", "minimal-values.yaml", release="serving-south")

    releases("uninstall", "serving-north", "--wait")

    (left,) = deployments(kubectl).values()
    assert left["metadata"]["name"] == "serving-south"
    assert ready(left) == left["spec"]["replicas"]


@pytest.mark.usefixtures("keda")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("chart", SERVICES)
def test_everything_at_once_is_admitted_and_scheduled(
    chart: str, plane: ControlPlane, releases: Helm, kubectl: Kubectl, claim: Callable[[str], None]
) -> None:
    """Pods are made by the controllers, under Pod Security; each with its class, tolerations and volumes."""
    assert (chart, "everything-values.yaml") in EXAMPLES
    claim("millstream-shared")
    more: tuple[str, ...] = ()
    if chart == "trainer":  # whose Jobs have a namespace of their own, which no chart makes
        plane.namespace(jobs := f"{kubectl.namespace}-jobs")
        more = ("--set", f"training.namespace={jobs}")

    # Not --wait: Helm would wait for scalers too, and their Kafka and Prometheus are nowhere.
    releases("install", chart, CHARTS / chart, "-f", CHARTS / chart / "ci" / "everything-values.yaml", *more)
    kubectl("rollout", "status", f"deployment/{chart}", "--timeout=60s", within=90)

    pods = kubectl.get("pods")["items"]
    assert {pod["spec"]["priorityClassName"] for pod in pods} == {"mill"}
    for one in deployments(kubectl).values():
        assert {
            "name": "project",
            "image": {"reference": "registry.example/parcels:7", "pullPolicy": "IfNotPresent"},
        } in (one["spec"]["template"]["spec"]["volumes"])


def gone(kubectl: Kubectl, kinds: str, before: set[str]) -> None:
    """What the release made is not there; pods and slices go a moment after it."""
    with suppress(WaitedTooLong):
        wait_until(lambda: kubectl.names(kinds) <= before, within=60, what="all to go", every=0.5)
    assert kubectl.names(kinds) <= before


def ready(deployment: dict[str, Any]) -> int:
    return int(deployment["status"].get("readyReplicas", 0))


def environment(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    return list(deployment["spec"]["template"]["spec"]["containers"][0]["env"])


def test_a_release_from_packages_is_the_same(
    releases: Helm, kubectl: Kubectl, claim: Callable[[str], None], tmp_path: Path
) -> None:
    """`helm package` puts the linked library in."""
    claim("millstream-shared")
    releases("package", CHARTS / "drift", "--destination", tmp_path)
    (package,) = tmp_path.glob("drift-*.tgz")

    releases(
        *("install", "drift", package, "-f", CHARTS / "drift" / "ci" / "minimal-values.yaml"),
        *("--wait", "--timeout", "60s"),
    )

    assert ready(deployments(kubectl)["drift"]) == 1
