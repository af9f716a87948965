"""Runs offered on a topic to pods that KEDA starts, for clusters where no service may make Jobs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from millstream.contracts.events import RunOffered
from millstream.contracts.topics import TRAINING_JOBS
from millstream.errors import RetryLater
from millstream.runtime.publisher import Publisher
from millstream_trainer.adapters.claims import Claims, note_of
from millstream_trainer.adapters.job_template import as_argument
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.training_process import Said
from millstream_trainer.domain.run import RunResult, RunSpec

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_PAUSE = 10.0
"""Seconds between two tries while Kafka or the folder is away."""


class OfferedRuns:
    """See `ports.Executor`. A run goes on without its dispatcher, and is taken up by its name.

    Nobody tells us how a pod fares: we see who took the run, whether it is alive, and what it says. Offering twice is safe,
    as a run that was taken or has ended is left alone.
    """

    outlives = True

    def __init__(
        self,
        *,
        publisher: Publisher,
        notes: RunNotes,
        claims: Claims,
        deadline: float,
        patience: float,
        untracked: Callable[[str], None],
        phase: Callable[[str, str | None], None] = lambda loop, phase: None,
        look: float = 5.0,
    ) -> None:
        """`deadline`: seconds for all tries together once a pod has begun; `patience`: until one takes the run, or takes it
        from one that went silent."""
        self._publisher = publisher
        self._notes = notes
        self._claims = claims
        self._deadline = deadline
        self._patience = patience
        self._untracked = untracked
        self._phase = phase
        self._look = look

    async def prepare(self) -> None:
        """A pod brings its own process."""

    async def run(self, spec: RunSpec) -> RunResult:
        name = name_of(spec)
        try:
            said = await self._patiently(lambda: self._claims.ended(name), spec)
            if said is None:
                await self._offer(name, spec)
                said = await self._see_through(name, spec)
        finally:
            self._phase(spec.loop, None)
        return said.settle(spec.loop, self._untracked)

    async def close(self) -> None:
        """Nothing of ours runs."""

    async def _offer(self, name: str, spec: RunSpec) -> None:
        await self._patiently(self._notes.sweep, spec)
        event = RunOffered(id=name, loop=spec.loop, run=spec.run, spec=as_argument(spec))
        record = self._publisher.outgoing(TRAINING_JOBS.name, event, id=name, key=name, caused_by=spec.request)
        await self._until_done(lambda: self._publisher.publish([record]), spec)
        log.info("run offered", extra={"loop": spec.loop, "job": name})

    async def _see_through(self, name: str, spec: RunSpec) -> Said:
        clock = asyncio.get_running_loop().time
        heard, ends = clock(), float("inf")
        while True:
            said = await self._patiently(lambda: self._claims.said(name), spec)
            if said is not None and said.last:
                return said
            if said is not None and said.phase is not None:
                self._phase(spec.loop, said.phase)
            taken = await self._patiently(lambda: self._claims.token(name), spec)
            if taken and await self._patiently(lambda: self._claims.alive(name), spec):
                heard, ends = clock(), min(ends, clock() + self._deadline)
            if clock() > ends:
                return await self._call_off(
                    name, spec, f"no pod did it within {self._deadline:.0f} s, all tries together"
                )
            if clock() - heard > self._patience:
                what = "the pod that took it went silent, and no other came" if taken else "no pod took it"
                why = "is KEDA there, and is its ScaledJob Ready?"
                waited = f"{what} within {self._patience:.0f} s, which is MILLSTREAM_JOB_PATIENCE"
                return await self._call_off(name, spec, f"{waited}: {why}")
            await asyncio.sleep(self._look)

    async def _call_off(self, name: str, spec: RunSpec, reason: str) -> Said:
        """Have the last word, so that no pod that comes late begins it; unless a pod was quicker."""
        while True:
            said = await self._patiently(lambda: self._claims.ended(name), spec)
            if said is not None:
                return said
            token = await self._patiently(lambda: self._claims.seize(name), spec)
            if token is not None:
                ours = Said(failed=f"run {name}: {reason}")
                await self._patiently(partial(self._notes.say, note_of(name, token), ours), spec)
                return ours

    async def _patiently(self, work: Callable[[], T], spec: RunSpec) -> T:
        return await self._until_done(lambda: asyncio.to_thread(work), spec)

    async def _until_done(self, work: Callable[[], Awaitable[T]], spec: RunSpec) -> T:
        """A run must not be lost because Kafka or the folder is away: try until it is there."""
        attempt = 0
        while True:
            try:
                return await work()
            except (RetryLater, OSError) as error:
                log.warning("the run waits: %s", error, extra={"loop": spec.loop, "run": spec.run})
            await _pause(attempt)
            attempt += 1


def name_of(spec: RunSpec) -> str:
    """The same run has the same name, whichever dispatcher offers it."""
    text = "\0".join((spec.loop, spec.run))
    return f"training-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


async def _pause(attempt: int) -> None:
    await asyncio.sleep(min(LONGEST_PAUSE, 0.2 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
