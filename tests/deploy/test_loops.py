"""MillstreamLoops on a real API server: what it refuses, what `kubectl get loops` tells, and what the trainer's account may do.

The keeper that is tested is the trainer's, as the chart's ServiceAccount with the chart's Role and policy. What needs no real
server is in services/trainer/tests/test_trainer_loops.py; test_training_jobs.py runs that on a real one too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from millstream.contracts.events import (
    Cause,
    Decision,
    Finding,
    ModelRef,
    ModelState,
    RetrainDecided,
    Step,
    WindowJudged,
    WindowKind,
)
from millstream.testing.waiting import wait_until
from millstream_trainer.adapters.kubernetes_loops import ANNOTATION, KubernetesLoops, LoopsApi
from millstream_trainer.adapters.memory import MemoryLoopCheck
from millstream_trainer.domain.hearing import heard
from millstream_trainer.domain.state import LoopState
from millstream_trainer.errors import LoopsRefused, RunFailed
from millstream_trainer.handlers.loop_resources import LoopKeeper

from .charts import ROOT, Refused, documents, of_kind, template
from .control_plane import ControlPlane
from .kubectl import Helm, Kubectl

FLIGHTS = ROOT / "examples" / "flights"
AT = datetime(2013, 6, 1, 12, tzinfo=UTC)
PAUSED = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: it, image: "it:1"}}]}}
"""


def flights() -> str:
    """As a person has them: python deploy/loop_resources.py examples/flights."""
    command = [sys.executable, ROOT / "deploy" / "loop_resources.py", FLIGHTS]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def a_loop(**changes: Any) -> str:
    """The flights' loop, with whole sections of its spec, or its name, changed."""
    (loop,) = json.loads(flights())["items"]
    loop["metadata"]["name"] = changes.pop("name", "flight-delay")
    loop["spec"] |= changes
    return json.dumps(loop)


def test_one_config_map_is_the_loops_of_every_pod(helm: Path) -> None:
    sets = ("global.project.files=null", "global.project.claim=parcels", "global.project.loops=mill-loops")
    found = documents(template(helm, "millstream", "minimal-values.yaml", *sets, "trainer.loops.enabled=true"))

    assert [one["metadata"]["name"] for one in of_kind(found, "ConfigMap")].count("mill-loops") == 1
    mounts = [
        mount["mountPath"]
        for deployment in of_kind(found, "Deployment")
        for mount in deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "loops"
    ]
    assert mounts == ["/project/loops"] * len(of_kind(found, "Deployment"))
    asking = [
        one for one in of_kind(found, "Deployment") if one["spec"]["template"]["spec"]["automountServiceAccountToken"]
    ]
    assert [one["metadata"]["labels"]["app.kubernetes.io/name"] for one in asking] == ["trainer"]


def test_loops_in_files_and_as_resources_are_refused_with_the_remedy(helm: Path, tmp_path: Path) -> None:
    sets = ("project.claim=", 'project.files={"loops/a.yaml": "loop: a"}', "training.executor=process")
    with pytest.raises(Refused, match=r"project\.files has loops/a\.yaml, .*project_values\.py --without-loops FOLDER"):
        template(helm, "trainer", "loops-values.yaml", *sets)

    script = ROOT / "deploy" / "project_values.py"
    command = [sys.executable, script, "--without-loops", FLIGHTS]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    assert not [path for path in json.loads(said)["project"]["files"] if path.startswith("loops/")]
    values = tmp_path / "project-values.yaml"
    values.write_text(said)
    template(helm, "trainer", "loops-values.yaml", "project.claim=", *sets[2:], options=("-f", str(values)))


def test_an_upgrade_leaves_what_the_trainer_wrote(kubectl: Kubectl, releases: Helm) -> None:
    values = ROOT / "deploy" / "charts" / "trainer" / "ci" / "loops-values.yaml"
    one = ("--set", "training.executor=process", "--set", "loops.policy.enabled=false")
    chart = ("trainer", ROOT / "deploy" / "charts" / "trainer", "-f", values, *one)
    releases("install", *chart)
    written = json.dumps({"data": {"tides.yaml": "loop: tides"}})
    kubectl("patch", "configmap", "mill-loops", "--type=merge", "-p", written)

    releases("upgrade", *chart, "--set", "settings.log_level=DEBUG")

    assert kubectl.get("configmap", "mill-loops")["data"] == {"tides.yaml": "loop: tides"}


def test_the_api_server_takes_the_example_and_explains_its_fields(kubectl: Kubectl) -> None:
    assert "flight-delay created" in kubectl("apply", "-f", "-", given=flights())
    assert "what drift said" not in kubectl("get", "loops")
    assert "cooldown" in kubectl("explain", "millstreamloop.spec.retrain")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retrain": {"mode": "sometimes"}}, 'supported values: "auto", "approve", "suggest"'),
        ({"retrian": {}}, 'unknown field "spec.retrian"'),
        ({"train": {"folds": 11}}, "should be less than or equal to 10"),
        ({"rollout": {"shadow": "many"}}, "must be of type integer"),
        ({"label": {"from": "flights-landed"}}, "spec.label.by: Required value"),
        ({"loop": "another"}, "spec.loop is another name than metadata.name"),
        ({"name": "flight.delay"}, "has no dots"),
    ],
)
def test_the_api_server_refuses_what_is_wrong_by_itself(changes: dict[str, Any], said: str, kubectl: Kubectl) -> None:
    assert said in kubectl.refuses("apply", "-f", "-", given=a_loop(**changes))


def test_on_without_quotes_is_no_key_for_kubectl(kubectl: Kubectl) -> None:
    """The trap that deploy/README.md tells of: YAML 1.1 reads it as true."""
    text = (FLIGHTS / "loops" / "flight-delay.yaml").read_text()
    spec = "\n".join(f"  {line}" for line in text.splitlines())
    head = "apiVersion: millstream.dev/v1alpha1\nkind: MillstreamLoop\nmetadata: {name: flight-delay}\nspec:\n"

    assert 'unknown field "spec.predict.true"' in kubectl.refuses("apply", "-f", "-", given=head + spec)
    quoted = (head + spec).replace("  on:", '  "on":')
    assert "created" in kubectl("apply", "-f", "-", given=quoted)


class Mill:
    """The chart's account, Role, ConfigMap and policy in one namespace, with Deployments that run nothing."""

    def __init__(self, kubectl: Kubectl, helm: Path) -> None:
        self.kubectl, self.namespace = kubectl, kubectl.namespace
        self.states: dict[str, LoopState] = {}
        self.check = MemoryLoopCheck()
        sets = ("training.executor=process", "training.namespace=", "networkPolicy.enabled=false")
        text = template(helm, "trainer", "loops-values.yaml", *sets, options=("--namespace", self.namespace))
        wanted = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "ValidatingAdmissionPolicy")
        found = [one for one in documents(text) if one["kind"].removesuffix("Binding") in (*wanted, "Role")]
        self.own = [one for one in found if one["kind"].startswith("Validating")]
        kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": found}))
        for name in ("mill-ingest", "mill-features", "mill-serving", "mill-drift", "trainer", "stranger"):
            kubectl("apply", "-f", "-", given=PAUSED.format(name=name))
        self.account = f"system:serviceaccount:{self.namespace}:trainer"

    @asynccontextmanager
    async def keeper(self, restarts: str) -> AsyncIterator[LoopKeeper]:
        resources = KubernetesLoops.of(f"{self.namespace}/mill-loops", restarts, self.kubectl.kubeconfig)
        for api, _ in resources._configs:
            api._client.set_default_header("Impersonate-User", self.account)
        try:
            yield LoopKeeper(resources=resources, check=self.check, states=lambda: self.states, look=1)
        finally:
            await resources.close()

    def refuses(self, change: dict[str, Any]) -> str:
        """Why the trainer may not change mill-serving so; empty where it may. kubectl would read it first, and may not that."""
        api = LoopsApi(self.namespace, self.kubectl.kubeconfig)
        api._client.set_default_header("Impersonate-User", self.account)
        try:
            api.merge("deployments", "mill-serving", change)
        except RunFailed as error:
            return str(error)
        finally:
            api.close()
            api.disconnect()
        return ""

    def line(self) -> dict[str, str]:
        """Of `kubectl get loops`: each column's name and what stands in it."""
        head, line = self.kubectl("get", "loops").splitlines()
        starts = [head.index(name) for name in head.split()]
        ends = [*starts[1:], None]
        return {head[a:b].strip(): line[a:b].strip() for a, b in zip(starts, ends, strict=True)}


@pytest.fixture
def mill(kubectl: Kubectl, helm: Path, plane: ControlPlane) -> Any:
    made = Mill(kubectl, helm)
    yield made
    for one in made.own:
        plane.kubectl("delete", one["kind"], one["metadata"]["name"])


ALL = "mill-ingest,mill-features,mill-serving,mill-drift,trainer"


async def test_kubectl_get_loops_tells_the_story(mill: Mill) -> None:
    mill.kubectl("apply", "-f", "-", given=flights())
    async with mill.keeper(ALL) as keeper:
        await keeper.reconcile()
        first = mill.line()
        assert (first["VALID"], first["CHAMPION"], first["VERDICT"]) == ("True", "", "")

        model = ModelRef(version="3", run="r3", uri="memory:3", sha256="0", at=AT)
        models = ModelState(
            id="m", loop="flight-delay", revision=1, step=Step.CHAMPION, champion=model, challenger=None, previous=None,
            reason="better", at=AT,
        )  # fmt: skip
        drifted = WindowJudged(
            id="w", loop="flight-delay", version="3", kind=WindowKind.INPUTS, index=0, finding=Finding.DETECTED,
            reason="distance moved", at=AT, start=AT, end=AT, rows=5000, effect=0.3,
        )  # fmt: skip
        decided = RetrainDecided(
            id="d", loop="flight-delay", request="w", cause=Cause.DRIFT, decision=Decision.ACCEPTED, reason="drift", at=AT,
            run="r4",
        )  # fmt: skip
        mill.states["flight-delay"] = heard(LoopState(loop="flight-delay").apply(models), drifted).apply(decided)
        await keeper.reconcile()

    told = mill.line()
    assert (told["CHAMPION"], told["VERDICT"], told["DECISION"]) == ("3", "detected (inputs)", "accepted (drift)")
    said = mill.kubectl("get", "loops", "-o", "wide")
    assert "2013-06-01 12:00: drift" in said
    waited = mill.kubectl("wait", "--for=condition=Champion", "loop/flight-delay", "--timeout=10s")
    assert "condition met" in waited
    config = mill.kubectl.get("configmap", "mill-loops")["data"]
    assert json.loads(config["flight-delay.yaml"])["loop"] == "flight-delay"
    for name in ALL.split(","):
        annotations = mill.kubectl.get("deployment", name)["spec"]["template"]["metadata"]["annotations"]
        assert annotations[ANNOTATION]


async def test_the_trainer_may_start_the_named_deployments_again_and_nothing_else(mill: Mill) -> None:
    async with mill.keeper("stranger") as keeper:
        with pytest.raises(LoopsRefused, match='cannot patch resource "deployments"'):
            await keeper.reconcile()
    image = {"spec": {"template": {"spec": {"containers": [{"name": "it", "image": "it:2"}]}}}}
    # A policy is obeyed a moment after it was made.
    wait_until(lambda: mill.refuses(image), within=100, what="the policy")
    assert "starts pods again, and changes nothing in them" in mill.refuses(image)
    assert "changes nothing in them" in mill.refuses({"spec": {"replicas": 9}})
    mark = {"spec": {"template": {"metadata": {"annotations": {"sidecar.istio.io/inject": "true"}}}}}
    assert f"changes the annotation {ANNOTATION} of pods alone" in mill.refuses(mark)
    assert not mill.refuses({"spec": {"template": {"metadata": {"annotations": {ANNOTATION: "1"}}}}})
    as_trainer = ("--as", mill.account)
    for what in (
        ("get", "secrets"),
        ("get", "configmap", "kube-root-ca.crt"),
        ("delete", "configmap", "mill-loops"),
        ("create", "configmap", "more"),
        ("delete", "loop", "flight-delay"),
        ("scale", "deployment", "mill-serving", "--replicas=9"),
    ):
        assert "forbidden" in mill.kubectl.refuses(*what, *as_trainer).lower(), what
