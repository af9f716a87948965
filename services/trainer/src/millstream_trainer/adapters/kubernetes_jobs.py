"""One Job of Kubernetes per run, named by it: however many dispatchers ask for a run, and however often, it is started once.

Or one TrainJob, RayJob or Workflow: the template says which, and `job_kinds` where they differ.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from millstream.errors import RetryLater
from millstream_trainer.adapters.job_template import JobTemplate
from millstream_trainer.adapters.kubernetes_api import KubernetesApi
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.training_process import Said
from millstream_trainer.domain.job import NO_POD, waits_for, why_failed
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.errors import RunFailed
from millstream_trainer.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 32
"""Each run waits in one, for ten seconds at a time; runs beyond take turns."""

NOTE_PATIENCE = 65.0
"""Seconds from a Job's end until its last word has to be readable here: NFS knows for up to 60 that a file was missing."""

LONGEST_PAUSE = 10.0
"""Seconds between two tries while the API server or the folder is away."""


class KubernetesJobs:
    """See `ports.Executor`. A run's Job outlives its dispatcher, and is taken up by its name.

    `untracked` hears the loop of each run whose record was not written to its end, `phase` the loop and the phase that its
    run is in, None when it has ended. Whatever is away is waited for, without another Job.
    """

    outlives = True

    def __init__(
        self,
        *,
        template: JobTemplate,
        api: KubernetesApi,
        notes: RunNotes,
        deadline: float,
        patience: float,
        untracked: Callable[[str], None],
        phase: Callable[[str, str | None], None] = lambda loop, phase: None,
        look: int = 10,
        note_patience: float = NOTE_PATIENCE,
    ) -> None:
        """`deadline`: seconds from a Job's start to its end, whatever it does; `patience`: until its pod has to begin; `look`:
        seconds between two looks at what nobody tells us, its phase and its pods."""
        self._template = template
        self._api = api
        self._notes = notes
        self._deadline = deadline
        self._patience = patience
        self._untracked = untracked
        self._phase = phase
        self._look = look
        self._note_patience = note_patience
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kubernetes")

    @classmethod
    def of(
        cls, settings: Settings, *, untracked: Callable[[str], None], phase: Callable[[str, str | None], None]
    ) -> KubernetesJobs:
        """Raises BadSetup."""
        template = JobTemplate.read(settings.job_template, settings.packages)
        return cls(
            template=template,
            api=KubernetesApi(template.namespace, settings.kubeconfig, template.kind),
            notes=RunNotes(settings.packages),
            deadline=settings.job_patience + settings.run_timeout + settings.mlflow_patience,
            patience=settings.job_patience,
            untracked=untracked,
            phase=phase,
        )

    async def prepare(self) -> None:
        """A Job brings its own process."""

    async def run(self, spec: RunSpec) -> RunResult:
        name = self._template.name(spec)
        try:
            said = await self._note(name, spec)
            if said is None or not said.last:
                said = await self._begin(name, spec)
        finally:
            self._phase(spec.loop, None)
        return said.settle(spec.loop, self._untracked)

    async def close(self) -> None:
        self._api.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._api.disconnect()

    async def _begin(self, name: str, spec: RunSpec) -> Said:
        """Have the Job there, and see it to its end."""
        await self._call(self._notes.sweep)
        if self._template.kind.stays:
            await self._patiently(self._sweep, spec)
        body = self._template.job(spec, self._deadline)
        made = await self._patiently(lambda: self._api.create(body), spec)
        log.info("job created" if made else "job is there already", extra={"loop": spec.loop, "job": name})
        loop = asyncio.get_running_loop()
        begins = loop.time() + self._patience
        waited: str | None = NO_POD
        while True:
            job = await self._patiently(lambda: self._api.job(name), spec)
            note = await self._note(name, spec)
            if note is not None and note.last and (job is None or job.ended):
                return note
            if job is None:
                return await self._last_word(name, spec, "was deleted while its run was under way")
            if job.complete:
                one = (
                    f"is complete, and left no word in {self._notes.folder}: trainer and Jobs have to mount one folder"
                )
                return await self._last_word(name, spec, one)
            if job.failure is not None:
                pods = await self._patiently(lambda: self._api.pods(name), spec)
                return Said(failed=f"job {name} failed: {why_failed(job.failure, pods, waited)}")
            if note is not None:
                waited = None  # who says a phase has begun
            elif waited is not None:
                pods = await self._patiently(lambda: self._api.pods(name), spec)
                before = waited
                waited = waits_for(pods) if pods else waited  # at its deadline a Job loses its pod before it says so
                if waited is not None and waited != before:
                    log.warning("job waits: %s", waited, extra={"loop": spec.loop, "job": name})
            if waited is not None and loop.time() > begins:
                await self._patiently(lambda: self._api.delete(name), spec)
                reason = f"job {name} did not begin within {self._patience:.0f} s and was deleted: {waited}"
                raise RunFailed(f"{reason}; MILLSTREAM_JOB_PATIENCE is how long it may wait")
            await self._patiently(partial(self._api.wait, job, self._look), spec)

    def _sweep(self) -> None:
        """Remove our ended ones, of kinds that nobody else removes."""
        for job in self._api.ended():
            created = job.metadata.creationTimestamp or datetime.now(UTC)
            if self._template.made(job.metadata.name) and datetime.now(UTC) - created > self._template.kept:
                self._api.delete(job.metadata.name)

    async def _note(self, name: str, spec: RunSpec) -> Said | None:
        """What the run said last; its phase is shown."""
        note = await self._patiently(lambda: self._notes.read(name), spec)
        if note is not None and note.phase is not None:
            self._phase(spec.loop, note.phase)
        return note

    async def _last_word(self, name: str, spec: RunSpec, what: str) -> Said:
        """Of a Job that ended: it was said before, and a shared folder may show it later."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._note_patience
        while loop.time() < ends:
            note = await self._note(name, spec)
            if note is not None and note.last:
                return note
            await asyncio.sleep(1)
        return Said(failed=f"job {name} {what}")

    async def _patiently(self, work: Callable[[], T], spec: RunSpec) -> T:
        """A run must not be lost, nor begun twice, because something is away: try until it answers."""
        attempt = 0
        while True:
            try:
                return await self._call(work)
            except RetryLater as error:
                log.warning("the run waits: %s", error, extra={"loop": spec.loop, "run": spec.run})
            await asyncio.sleep(min(LONGEST_PAUSE, 0.2 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
            attempt += 1

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
