"""What the probes of a process say: of itself, and where it is one worker of several, of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Scope

from millstream.runtime.crew import Place
from millstream.runtime.health import Health

WITHIN = 3.0
"""Seconds that a worker has to answer another. A long model run holds it up for some, and then it is busy, not stuck."""


class Silence(StrEnum):
    """Why a worker said nothing."""

    STARTS = "it starts"
    BUSY = f"it did not answer within {WITHIN:.0f} s"


class Probes:
    """Asked by the doorways. Any worker may be asked: whoever took the connection asks the others."""

    def __init__(self, health: Health, registry: CollectorRegistry, place: Place | None) -> None:
        self.own = health
        """Of this worker alone: what a caller is told whose connection stays with it."""
        self._registry = registry
        self._place = place

    async def not_alive(self, scope: Scope | None = None) -> list[str]:
        """Why this should be restarted; empty: it should not. A worker that is starting is none: its leader sees to it."""
        if self._own(scope):
            return self.own.not_alive()
        found: list[str] = []
        for number, reply in enumerate(await self._all("/livez")):
            if isinstance(reply, bytes):
                found += [f"worker {number}: {reason}" for reason in msgspec.json.decode(reply)["reasons"]]
            elif reply is Silence.BUSY:
                found.append(f"worker {number}: {reply}")
        return found

    async def not_ready(self, scope: Scope | None = None) -> dict[str, str]:
        """What is missing; empty: nothing."""
        if self._own(scope):
            return self.own.not_ready()
        found: dict[str, str] = {}
        for number, reply in enumerate(await self._all("/readyz")):
            if isinstance(reply, bytes):
                missing: dict[str, str] = msgspec.json.decode(reply)["missing"]
                found |= {f"worker {number}: {what}": detail for what, detail in missing.items()}
            else:
                found[f"worker {number}"] = reply.value
        return found

    async def metrics(self, scope: Scope | None = None) -> bytes:
        """In Prometheus' text format; of several workers with the label `worker`. One that does not answer is left out."""
        if self._own(scope):
            return generate_latest(self._registry)
        texts = {
            str(number): reply.decode()
            for number, reply in enumerate(await self._all("/metrics"))
            if isinstance(reply, bytes)
        }
        # Off the loop: it reads and writes a few thousand lines a worker.
        return await asyncio.to_thread(_together, texts)

    def _own(self, scope: Scope | None) -> bool:
        """Whether only this process is meant: it is alone, or a worker asks it over its own door."""
        return self._place is None or (scope is not None and (scope.get("server") or (None, 0))[1] is None)

    async def _all(self, path: str) -> list[bytes | Silence]:
        assert self._place is not None, "a process that is alone asks nobody"
        return await asyncio.gather(*(self._ask(self._place, number, path) for number in range(self._place.of)))

    @staticmethod
    async def _ask(place: Place, number: int, path: str) -> bytes | Silence:
        import httpx  # who is alone asks nobody, and does without it

        transport = httpx.AsyncHTTPTransport(uds=str(place.door(number)))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=WITHIN) as http:
                return (await http.get(path)).content
        except httpx.TimeoutException:
            return Silence.BUSY
        except httpx.HTTPError:  # no door, or it was shut in our face
            return Silence.STARTS


class _Families:
    """What `generate_latest` takes for a registry."""

    def __init__(self, families: dict[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families.values())


def _together(texts: dict[str, str]) -> bytes:
    families: dict[str, Metric] = {}
    for worker, text in texts.items():
        for family in text_string_to_metric_families(text):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.samples.append(sample._replace(labels={"worker": worker, **sample.labels}))
    registry: Any = _Families(families)
    return generate_latest(registry)
