"""One process per run, forked from a server that has the heavy libraries in memory already."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

import msgspec

from millstream_trainer.adapters import training_process
from millstream_trainer.adapters.training_process import UNTRACKED, Said
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.errors import RunFailed

log = logging.getLogger(__name__)

PRELOAD = "millstream_trainer.adapters.preload"

ENDING = 10.0
"""Seconds from a process's last word, or from its kill, to its end. It takes a tenth; an upload that hangs takes longer."""

LAST_MOMENT = 3.0
"""Seconds that records being written get when the trainer stops: a server that is well takes one for a whole record."""


class ProcessExecutor:
    """See `ports.Executor`. The fork server and its children end with the trainer, however it ends.

    `untracked` hears the loop of each run whose record was not written to its end, `phase` the loop and the phase that its
    run is in, None when it has ended.
    """

    outlives = False

    def __init__(
        self,
        *,
        place: Workplace,
        timeout: float,
        untracked: Callable[[str], None],
        phase: Callable[[str, str | None], None] = lambda loop, phase: None,
    ) -> None:
        self._place = place
        self._timeout = timeout
        self._untracked = untracked
        self._phase = phase
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])
        self._processes: set[ForkServerProcess] = set()
        self._records: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """Processes that train or write their record."""
        return [process.pid for process in self._processes if process.pid is not None]

    async def prepare(self) -> None:
        """Start the fork server; it imports in its own time."""
        await asyncio.to_thread(forkserver.ensure_running)

    async def run(self, spec: RunSpec) -> RunResult:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=training_process.main,
            args=(sender, msgspec.json.encode(spec), msgspec.json.encode(self._place)),
            name=f"run {spec.run}",
            daemon=True,
        )
        with receiver:
            with sender:
                await self._start(process)
            try:
                answer = await self._answer(process, receiver, spec)
            except BaseException:
                await self._end(process, spec)
                raise
            finally:
                self._phase(spec.loop, None)
        record = asyncio.create_task(self._record(process, spec), name=f"record of run {spec.run}")
        self._records.add(record)
        record.add_done_callback(self._records.discard)
        if answer.result is None:
            raise RunFailed(answer.failed or "the run ended without a result")
        return answer.result

    async def close(self) -> None:
        if self._records:
            await asyncio.wait(self._records, timeout=LAST_MOMENT)
        for process in self._processes:
            process.kill()  # who waits for it takes it away
        await asyncio.gather(*self._records)

    async def _start(self, process: ForkServerProcess) -> None:
        # Blocks while the fork server is still importing. Cancelled meanwhile, it waits for the process in order to end it.
        starting = asyncio.create_task(asyncio.to_thread(process.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            process.kill()
            raise
        self._processes.add(process)

    async def _answer(self, process: ForkServerProcess, receiver: Connection, spec: RunSpec) -> Said:
        """The outcome, said as soon as it is known; a process that ends without one closes its side of the pipe."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._timeout
        try:
            while True:
                if not await _readable(receiver.fileno(), ends - loop.time()):
                    raise RunFailed(f"the run took longer than {self._timeout:.0f} s and was ended")
                said = msgspec.json.decode(receiver.recv_bytes(), type=Said)
                if said.phase is None:
                    return said
                self._phase(spec.loop, said.phase)
        except (EOFError, OSError):
            await _readable(process.sentinel, ENDING)
            code = process.exitcode
        cause = f"signal {-code} (out of memory, or ended by hand)" if code is not None and code < 0 else f"code {code}"
        raise RunFailed(f"the training process of attempt {spec.attempt} ended with {cause} and without a result")

    async def _record(self, process: ForkServerProcess, spec: RunSpec) -> None:
        """It has answered, and ends when its record is written, or in a bounded time."""
        await _readable(process.sentinel, self._place.mlflow_patience + ENDING)
        if process.exitcode not in (0, UNTRACKED):  # of UNTRACKED it said why
            log.warning("the process ended before its record", extra={"loop": spec.loop, "run": spec.run})
        await self._end(process, spec)

    async def _end(self, process: ForkServerProcess, spec: RunSpec) -> None:
        if process.exitcode is None:
            process.kill()
            await _readable(process.sentinel, ENDING)
        if process.exitcode != 0 and self._place.mlflow:
            self._untracked(spec.loop)
        self._processes.discard(process)
        process.close()


async def _readable(fd: int, patience: float) -> bool:
    """Whether `fd` has something to say, or its other side ended, within `patience` seconds. No thread waits meanwhile."""
    loop = asyncio.get_running_loop()
    said = asyncio.Event()
    loop.add_reader(fd, said.set)
    try:
        async with asyncio.timeout(patience):
            await said.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True
