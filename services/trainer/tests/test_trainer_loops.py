"""Loops as resources of Kubernetes: what a MillstreamLoop says becomes a file, and what became of the loop is its status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from ruamel.yaml import YAML

from millstream.contracts.events import Finding, ModelState, Step
from millstream.contracts.times import to_datetime
from millstream.errors import BadSetup, RetryLater
from millstream.project import load_project
from millstream_trainer.adapters.kubernetes_loops import KubernetesLoops
from millstream_trainer.adapters.loop_check import ProcessCheck
from millstream_trainer.adapters.memory import MemoryLoopCheck
from millstream_trainer.domain.hearing import asked_by, heard
from millstream_trainer.domain.policy import decide
from millstream_trainer.domain.state import LoopState
from millstream_trainer.errors import LoopsRefused
from millstream_trainer.handlers.loop_resources import LoopKeeper

from .cluster import Cluster, new_cluster
from .trainer_kit import NOON, ref

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
SPEC = {
    "predict": {"on": "tides-asked", "features": "tides_v1", "inputs": ["moon"]},
    "label": {"from": "tides-seen", "by": "id", "value": "height", "within": "1d"},
}
KIND = ("millstream.dev", "v1alpha1")


class Harbour:
    """One namespace with its ConfigMap and Deployments, and who looks after the loops in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.namespace = cluster, cluster.namespace
        self.check = MemoryLoopCheck()
        self.states: dict[str, LoopState] = {}
        self.now = NOON
        self._core, self._apps = client.CoreV1Api(cluster._client), client.AppsV1Api(cluster._client)
        self._any = client.CustomObjectsApi(cluster._client)
        for name in ("mill-loops", "mill-copy"):
            self._core.create_namespaced_config_map(self.namespace, {"metadata": {"name": name}})
        for name in ("serving", "trainer"):
            labels = {"app": name}
            template = {
                "metadata": {"labels": labels, "annotations": {"harbour": "old"}},
                "spec": {"containers": [{"name": "it", "image": "it:1"}]},
            }
            spec = {"selector": {"matchLabels": labels}, "template": template}
            self._apps.create_namespaced_deployment(self.namespace, {"metadata": {"name": name}, "spec": spec})

    def writes(self, name: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": "/".join(KIND), "kind": "MillstreamLoop", "metadata": {"name": name}, "spec": spec}
        self._any.create_namespaced_custom_object(*KIND, self.namespace, "millstreamloops", body)

    def changes(self, name: str, spec: dict[str, Any]) -> None:
        self._any.patch_namespaced_custom_object(*KIND, self.namespace, "millstreamloops", name, {"spec": spec})

    def removes(self, name: str) -> None:
        self._any.delete_namespaced_custom_object(*KIND, self.namespace, "millstreamloops", name)

    def status(self, name: str) -> dict[str, Any]:
        found = self._any.get_namespaced_custom_object(*KIND, self.namespace, "millstreamloops", name)
        status: dict[str, Any] = found.get("status", {})
        return status

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        (found,) = [one for one in self.status(name)["conditions"] if one["type"] == kind]
        return dict(found)

    def files(self, config: str = "mill-loops") -> dict[str, str]:
        return dict(self._core.read_namespaced_config_map(config, self.namespace).data or {})

    def mark(self, deployment: str) -> str | None:
        found = self._apps.read_namespaced_deployment(deployment, self.namespace).spec.template.metadata.annotations
        assert found["harbour"] == "old"
        return found.get("millstream/loops")  # type: ignore[no-any-return]

    @asynccontextmanager
    async def keeper(self, config: str = "mill-loops", restarts: str = "serving,trainer") -> AsyncIterator[LoopKeeper]:
        configs = f"{self.namespace}/{config},{self.namespace}/mill-copy"
        resources = KubernetesLoops.of(configs, restarts, self.cluster.kubeconfig)
        try:
            yield LoopKeeper(
                resources=resources,
                check=self.check,
                states=lambda: self.states,
                clock=lambda: self.now,
                look=1,
                pause=0.05,
            )
        finally:
            await resources.close()


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    with new_cluster(tmp_path) as cluster:
        yield Harbour(cluster)


def read(text: str) -> Any:
    return YAML(typ="safe").load(text)


async def test_a_loop_becomes_a_file_in_every_config_map_and_the_services_start_again(harbour: Harbour) -> None:
    harbour.writes("tides", SPEC)
    async with harbour.keeper() as keeper:
        await keeper.reconcile()
    assert read(harbour.files()["tides.yaml"]) == {"loop": "tides"} | SPEC
    assert harbour.files() == harbour.files("mill-copy")
    assert harbour.mark("serving") == harbour.mark("trainer") is not None
    assert harbour.condition("tides", "Valid")["status"] == "True"


async def test_what_is_done_is_not_done_again_also_by_the_next_trainer(harbour: Harbour) -> None:
    harbour.writes("tides", SPEC)
    async with harbour.keeper() as keeper:
        await keeper.reconcile()
        before = harbour.status("tides"), harbour.mark("serving")
        harbour.now += 60_000_000
        await keeper.reconcile()
    async with harbour.keeper() as keeper:
        await keeper.reconcile()
    assert (harbour.status("tides"), harbour.mark("serving")) == before
    if harbour.cluster.server is not None:
        asked = harbour.cluster.server.requests
        assert asked.count(("patch", "millstreamloops")) == 1
        assert asked.count(("patch", "configmaps")) == 2  # one for each
    assert harbour.check.asked == 2  # once for each trainer


async def test_a_wrong_loop_stays_as_it_was_and_its_condition_says_what_to_write(harbour: Harbour) -> None:
    harbour.writes("tides", SPEC)
    harbour.check.wrong = {"moons": "spec.predict.inputs[0]: 'moons' is no field; did you mean 'moon'?"}
    async with harbour.keeper() as keeper:
        await keeper.reconcile()
        right, mark = harbour.files(), harbour.mark("serving")
        harbour.changes("tides", {"predict": {**SPEC["predict"], "inputs": ["moons"]}})
        harbour.writes("waves", {**SPEC, "description": "moons"})
        await keeper.reconcile()
    assert (harbour.files(), harbour.mark("serving")) == (right, mark)
    found = harbour.condition("tides", "Valid")
    assert (found["status"], found["reason"], found["observedGeneration"]) == ("False", "Wrong", 2)
    assert found["message"].startswith("spec.predict.inputs[0]: 'moons' is no field; did you mean 'moon'?")
    assert found["message"].endswith("The loop goes on as it was written before.")
    assert "goes on" not in harbour.condition("waves", "Valid")["message"]


async def test_a_wrong_project_changes_no_loop(harbour: Harbour) -> None:
    harbour.writes("tides", SPEC)
    async with harbour.keeper() as keeper:
        await keeper.reconcile()
        right = harbour.files()
        harbour.check.project = ["streams/tides.yaml:3: no such field"]
        harbour.removes("tides")
        harbour.writes("waves", SPEC)
        await keeper.reconcile()
    assert harbour.files() == right
    assert harbour.condition("waves", "Valid")["status"] == "Unknown"


async def test_a_loop_that_is_removed_leaves_the_files(harbour: Harbour) -> None:
    harbour.writes("tides", SPEC)
    harbour.writes("waves", SPEC)
    async with harbour.keeper() as keeper:
        await keeper.reconcile()
        mark = harbour.mark("serving")
        harbour.removes("tides")
        await keeper.reconcile()
    assert harbour.files().keys() == harbour.files("mill-copy").keys() == {"waves.yaml"}
    assert harbour.mark("serving") != mark


async def test_the_status_tells_champion_verdict_and_decision(harbour: Harbour, tides: Any) -> None:
    harbour.writes("tides", SPEC)
    state = LoopState(loop="tides")
    async with harbour.keeper() as keeper:
        await keeper.reconcile()
        silent = harbour.status("tides")
        assert {one["type"]: one["status"] for one in silent["conditions"]} == {
            "Valid": "True",
            "Champion": "Unknown",
            "Healthy": "Unknown",
            "Decided": "Unknown",
        }
        harbour.states["tides"] = state
        await keeper.reconcile()
        assert harbour.condition("tides", "Champion")["reason"] == "NoModel"

        models = ModelState(
            id="m1",
            loop="tides",
            revision=1,
            step=Step.CANARY,
            champion=ref("3"),
            challenger=ref("4"),
            previous=None,
            reason="better so far",
            at=to_datetime(0),
            share=0.1,
        )
        state = state.apply(models)
        drifted = tides.judged(40, Finding.DETECTED)
        state = heard(state, drifted)
        ask = asked_by(state, drifted, tides.rules)
        assert ask is not None
        decided = decide(state, ask, tides.rules)
        state = state.apply(decided)
        harbour.states["tides"] = state
        harbour.now += 60_000_000
        await keeper.reconcile()
    said = harbour.status("tides")
    assert (said["champion"], said["trial"], said["verdict"]) == ("3", "4 (canary 10%)", "detected (inputs)")
    assert said["decision"] == f"{decided.decision.value} (drift)"
    assert harbour.condition("tides", "Healthy")["status"] == "False"
    assert drifted.reason in harbour.condition("tides", "Healthy")["message"]
    assert decided.reason in harbour.condition("tides", "Decided")["message"]
    first = {one["type"]: one["lastTransitionTime"] for one in silent["conditions"]}
    assert harbour.condition("tides", "Valid")["lastTransitionTime"] == first["Valid"]
    assert harbour.condition("tides", "Champion")["lastTransitionTime"] != first["Champion"]


async def test_a_change_is_seen_at_once_and_a_verdict_soon(harbour: Harbour, until: Callable[..., Any]) -> None:
    async with harbour.keeper() as keeper:
        working = asyncio.create_task(keeper.work())
        try:
            harbour.writes("tides", SPEC)
            await until(lambda: harbour.files().keys() == {"tides.yaml"} and "conditions" in harbour.status("tides"))
            harbour.states["tides"] = LoopState(loop="tides")
            await until(lambda: harbour.condition("tides", "Champion")["reason"] == "NoModel")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def test_what_is_not_there_is_named_with_its_remedy(harbour: Harbour) -> None:
    async with harbour.keeper("mill-lops") as keeper:
        with pytest.raises(LoopsRefused, match=r"no ConfigMap mill-lops in .*; the chart makes it"):
            await keeper.reconcile()
    async with harbour.keeper(restarts="servin") as keeper:
        with pytest.raises(LoopsRefused, match=r"no Deployment servin in .*; loops\.restart"):
            await keeper.reconcile()
    if (server := harbour.cluster.server) is None:
        return
    server.refused = {("patch", "deployments")}
    async with harbour.keeper() as keeper:
        with pytest.raises(LoopsRefused, match=r'misses \{apiGroups: \["apps"\], resources: \["deployments"\]'):
            await keeper.reconcile()
    server.unknown = {"millstreamloops"}
    async with harbour.keeper() as keeper:
        with pytest.raises(LoopsRefused, match=r"kubectl apply --server-side -f deploy/crds/millstreamloops\.yaml"):
            await keeper.reconcile()


async def test_an_api_server_that_is_away_is_waited_for(harbour: Harbour, until: Callable[..., Any]) -> None:
    if (server := harbour.cluster.server) is None:
        pytest.skip("a real one is not away when a test would like it to")
    harbour.writes("tides", SPEC)
    server.away = True
    async with harbour.keeper() as keeper:
        with pytest.raises(RetryLater):
            await keeper.reconcile()
        working = asyncio.create_task(keeper.work())
        await asyncio.sleep(0)
        server.away = False
        await until(lambda: harbour.files().keys() == {"tides.yaml"})
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def test_a_config_map_without_its_namespace_is_refused(harbour: Harbour) -> None:
    with pytest.raises(BadSetup, match="write ConfigMaps as mill/mill-loops"):
        KubernetesLoops.of("mill-loops", "", harbour.cluster.kubeconfig)


@pytest.mark.timeout(600)  # Feast's import, twice, on a machine that may be busy
async def test_a_check_says_of_a_loop_what_millstream_check_says(tmp_path: Path) -> None:
    right = (FLIGHTS / "loops" / "flight-delay.yaml").read_text()
    said = YAML(typ="safe").load(right)
    assert (await ProcessCheck(FLIGHTS).check({"flight-delay.yaml": json.dumps(said)})).loops == {}
    said["predict"]["features"] = "delay_v0"
    said["rolout"] = {}
    found = await ProcessCheck(FLIGHTS).check({"flight-delay.yaml": json.dumps(said)})
    assert found.project == []
    lines = sorted(found.loops["flight-delay.yaml"])
    assert any(
        "delay_v0" in line and "delay_v1" in line and line.startswith("spec.predict.features: ") for line in lines
    )
    assert any("unknown key 'rolout'; did you mean 'rollout'" in line for line in lines)
    assert load_project(FLIGHTS).loops.keys() == {"flight-delay"}
