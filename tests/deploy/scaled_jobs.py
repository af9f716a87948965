"""ScaledJobs on a control plane: runs offered to them, their Jobs, and the word and the end of pods that no kubelet runs here.

What KEDA counts is moved by the pods' own code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka.partitioner import DefaultPartitioner
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from millstream.contracts.events import RunOffered
from millstream.contracts.topics import TRAINING_JOBS
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Publisher
from millstream.runtime.topic_admin import ensure_topics, our_topics
from millstream_trainer.adapters.claims import Claims, note_of
from millstream_trainer.adapters.job_template import as_argument
from millstream_trainer.adapters.offered_runs import name_of
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.taking_job import commit, read
from millstream_trainer.adapters.training_process import Said

from .kubectl import Kubectl
from .training import SPEC

LOOK = 2
"""Seconds between two looks of KEDA, for a test's sake."""


class Offered:
    """Runs on the topic, and what their pods say of them in a folder of the test."""

    def __init__(self, kafka: str, publisher: Publisher, packages: Path) -> None:
        self._kafka = kafka
        self._publisher = publisher
        self._notes = RunNotes(str(packages))
        self._claims = Claims(self._notes)

    async def offers(self, run: str) -> None:
        spec = replace(SPEC, run=run)
        event = RunOffered(id=(name := name_of(spec)), loop=spec.loop, run=run, spec=as_argument(spec))
        record = self._publisher.outgoing(TRAINING_JOBS.name, event, id=name, key=name)
        await self._publisher.publish([record])

    async def ends(self, run: str) -> None:
        """Its pod has said its last word, and goes."""
        name = name_of(replace(SPEC, run=run))
        token = self._claims.seize(name)
        assert token == 1
        self._notes.say(note_of(name, token), Said(failed="enough was seen"))
        await self.looks()

    async def looks(self) -> None:
        """What each pod does before it goes, also one that found nothing to do."""
        await commit(self._kafka, await read(self._kafka), self._claims)


def partition_of(run: str) -> int:
    """On which it will be offered."""
    everywhere = list(range(TRAINING_JOBS.partitions))
    return int(DefaultPartitioner()(name_of(replace(SPEC, run=run)).encode(), everywhere, everywhere))


@asynccontextmanager
async def offered(kafka: str, packages: Path) -> AsyncIterator[Offered]:
    await ensure_topics(kafka, our_topics([TRAINING_JOBS]))
    metrics = RuntimeMetrics(CollectorRegistry())
    publisher = Publisher(bootstrap=kafka, source="test", timeout=15, metrics=metrics)
    await publisher.start()
    try:
        yield Offered(kafka, publisher, packages)
    finally:
        await publisher.stop()


class Jobs:
    """Of one ScaledJob. KEDA cannot say which run is whose."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._kubectl = kubectl
        self._label = f"scaledjob.keda.sh/name={name}"

    def all(self) -> set[str]:
        return {one["metadata"]["name"] for one in self._listed()}

    def under_way(self) -> set[str]:
        ended = ("Complete", "Failed")
        return {
            one["metadata"]["name"]
            for one in self._listed()
            if not any(c["type"] in ended and c["status"] == "True" for c in one["status"].get("conditions", []))
        }

    def _listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._kubectl.get("jobs", "-l", self._label)["items"]
        return found

    def run(self, count: int) -> bool:
        """Whether so many Jobs are under way, each with a pod that runs."""
        pods = self._kubectl.get("pods", "-l", self._label)["items"]
        running = {pod["metadata"]["labels"]["job-name"] for pod in pods if pod["status"].get("phase") == "Running"}
        return self.under_way() == running and len(running) == count

    def end(self, job: str) -> None:
        """Its pod ends with 0."""
        (pod,) = self._kubectl.get("pods", "-l", f"job-name={job}")["items"]
        ended = json.dumps({"status": {"phase": "Succeeded"}})
        name = pod["metadata"]["name"]
        self._kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", ended)

    async def stay(self, count: int, looks: int = 5) -> None:
        """So many were ever made, and KEDA makes no other in so many looks. Raises AssertionError."""
        for _ in range(looks):
            assert len(await asyncio.to_thread(self.all)) == count
            await asyncio.sleep(LOOK)
        assert len(await asyncio.to_thread(self.all)) == count
