"""KEDA's traps, each sprung on a real one by the setting that people begin with, and not by ours.

deploy/README.md has the table of all traps and the test of each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.waiting import wait_until

from .charts import documents, of_kind, template
from .control_plane import ControlPlane
from .keda import settle
from .kubectl import Kubectl
from .test_lag import PARTITIONS, QUICK, comes_to, condition, group, replicas

pytestmark = [pytest.mark.usefixtures("keda"), pytest.mark.timeout(600)]

POD = {
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "it",
                "image": "it:1",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}
OURS = {
    "version": "3.6.0",
    "lagThreshold": "10",
    "offsetResetPolicy": "earliest",
    "allowIdleConsumers": "false",
    "scaleToZeroOnInvalidOffset": "false",
    "limitToPartitionsWithLag": "true",
    "excludePersistentLag": "true",
}
"""As the charts write them; tests/deploy/test_scalers.py says so."""


def workload(kubectl: Kubectl, name: str) -> None:
    """A Deployment of one, which KEDA may scale, with a label of its own: an HPA scales no pods that another HPA finds too."""
    labels = {"app": name}
    pod = {**POD, "metadata": {"labels": labels}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod}
    _apply(kubectl, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})


def scaled(kubectl: Kubectl, name: str, trigger: dict[str, str], *, least: int = 1, behavior: Any = QUICK) -> None:
    spec = {
        "scaleTargetRef": {"name": name},
        "minReplicaCount": least,
        "maxReplicaCount": 6,
        "pollingInterval": 1,
        "cooldownPeriod": 5,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": [{"type": "kafka", "useCachedMetrics": True, "metadata": trigger}],
    }
    metadata = {"name": name}
    _apply(kubectl, {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata, "spec": spec})


def _apply(kubectl: Kubectl, made: dict[str, Any]) -> None:
    kubectl("apply", "-f", "-", given=json.dumps(made))


def at(kafka: EmbeddedKafka, topic: str, consumers: str, **more: str) -> dict[str, str]:
    return {"bootstrapServers": kafka.bootstrap, "topic": topic, "consumerGroup": consumers, **more}


def is_ready(kubectl: Kubectl, name: str) -> bool:
    return bool(condition(kubectl, name, "Ready")["status"] == "True")


async def stays_at(kubectl: Kubectl, name: str, wanted: int, seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    while clock() - began < seconds:
        assert (await asyncio.to_thread(replicas, kubectl, name))[0] == wanted
        await asyncio.sleep(0.5)


@contextmanager
def away(plane: ControlPlane, name: str) -> Iterator[None]:
    """A process of the control plane that answers nobody."""
    (process,) = (one for one in plane.processes if one.name == name)
    process.stop_signal()
    try:
        yield
    finally:
        process.cont_signal()


async def test_a_misspelt_key_passes_everything_and_shows_as_not_ready(
    kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("parcels")
    async with group(kafka, "it", topic) as consumers:
        await consumers.caught_up()
        workload(kubectl, "naive")
        wrong = at(kafka, topic, "it", **OURS)
        wrong["consumerGrup"] = wrong.pop("consumerGroup")
        scaled(kubectl, "naive", wrong)  # taken by schema and webhook
        wait_until(lambda: condition(kubectl, "naive", "Ready")["status"] == "False", within=60, what="KEDA to say so")
        workload(kubectl, "ours")
        scaled(kubectl, "ours", at(kafka, topic, "it", **OURS))
        wait_until(lambda: is_ready(kubectl, "ours"), within=60, what="a scaler")


async def test_a_group_that_never_committed_counts_as_lag_where_it_begins_at_the_end(
    kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("parcels")
    async with group(kafka, unique_name("other"), topic):
        for name, policy in (("naive", "latest"), ("ours", "earliest")):
            workload(kubectl, name)
            said = at(kafka, topic, unique_name("never"), **OURS | {"offsetResetPolicy": policy})
            scaled(kubectl, name, said, least=0)
        await comes_to(kubectl, "ours", 0)
        await stays_at(kubectl, "naive", 1, 15)  # for an empty topic


async def test_lag_that_stands_still_brings_replicas_where_it_counts(
    kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    topic, consumers = unique_name("parcels"), unique_name("it")
    async with group(kafka, consumers, topic) as one:
        await one.writes(1)
        await one.caught_up()
        for name, counts in (("naive", "false"), ("ours", "true")):
            workload(kubectl, name)
            scaled(kubectl, name, at(kafka, topic, consumers, **OURS | {"excludePersistentLag": counts}))
        settle(kubectl, "scaledobject", "naive", "ours")
        await one.writes(3_000)
        await comes_to(kubectl, "naive", PARTITIONS)
        assert (await asyncio.to_thread(replicas, kubectl, "ours"))[0] == 1


async def test_more_than_one_needs_the_adapter(
    kubectl: Kubectl, plane: ControlPlane, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    """From none to one KEDA scales by itself, which looks as if it worked."""
    topic, consumers = unique_name("parcels"), unique_name("it")
    async with group(kafka, consumers, topic) as one:
        await one.caught_up()
        workload(kubectl, "ours")
        with away(plane, "keda-adapter"):
            scaled(kubectl, "ours", at(kafka, topic, consumers, **OURS), least=0)
            await comes_to(kubectl, "ours", 0)
            await one.writes(3_000)
            await comes_to(kubectl, "ours", 1)
            async with one.working():
                await stays_at(kubectl, "ours", 1, 20)
        async with one.working():
            await comes_to(kubectl, "ours", PARTITIONS)


async def test_a_saw_tooth_flaps_without_a_window_and_not_with_the_charts(
    helm: Path, kubectl: Kubectl, kafka: EmbeddedKafka, unique_name: Callable[[str], str]
) -> None:
    """Each step stops the whole group: the chart waits ten minutes before one goes."""
    (chart,) = of_kind(documents(template(helm, "features", "keda-values.yaml")), "ScaledObject")
    calm = chart["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    topic, consumers = unique_name("parcels"), unique_name("it")
    async with group(kafka, consumers, topic) as one:
        await one.writes(1)
        await one.caught_up()
        for name, behavior in (("naive", QUICK), ("ours", calm)):
            workload(kubectl, name)
            # Each tooth is new lag; what stands still between two is not what is tried here.
            said = at(kafka, topic, consumers, **OURS | {"excludePersistentLag": "false"})
            scaled(kubectl, name, said, behavior=behavior)
        settle(kubectl, "scaledobject", "naive", "ours")
        for _ in range(3):
            await one.writes(1_000)
            for name in ("naive", "ours"):
                await comes_to(kubectl, name, PARTITIONS)
            await one.caught_up()
            await comes_to(kubectl, "naive", 1)
            assert (await asyncio.to_thread(replicas, kubectl, "ours"))[0] == PARTITIONS
