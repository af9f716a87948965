"""One process per run, forked from a server that has the heavy libraries in memory already."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

import msgspec

from millstream_trainer.adapters import training_process
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.errors import RunFailed

log = logging.getLogger(__name__)

PRELOAD = "millstream_trainer.adapters.preload"


class ProcessExecutor:
    """See `ports.Executor`. The fork server and its children end with the trainer, however it ends."""

    def __init__(self, *, place: Workplace, timeout: float) -> None:
        self._place = place
        self._timeout = timeout
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])
        self._processes: set[ForkServerProcess] = set()

    @property
    def pids(self) -> list[int]:
        """Processes that are under way."""
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
        self._processes.add(process)
        try:
            # Blocks while the fork server is still importing.
            await asyncio.to_thread(process.start)
            sender.close()
            return await self._result(process, receiver, spec)
        finally:
            receiver.close()
            await self._end(process)

    async def _result(self, process: ForkServerProcess, receiver: Connection, spec: RunSpec) -> RunResult:
        try:
            async with asyncio.timeout(self._timeout):
                await _readable(process.sentinel)
        except TimeoutError as error:
            raise RunFailed(f"the run took longer than {self._timeout:.0f} s and was ended") from error
        try:
            raw = receiver.recv_bytes() if receiver.poll() else b""
        except EOFError:
            raw = b""
        if raw:
            answer = msgspec.json.decode(raw, type=training_process.Answer)
            if answer.result is not None:
                return answer.result
            raise RunFailed(answer.failed or "the run ended without a result")
        code = process.exitcode
        cause = f"signal {-code} (out of memory, or ended by hand)" if code is not None and code < 0 else f"code {code}"
        raise RunFailed(f"the training process of attempt {spec.attempt} ended with {cause} and without a result")

    async def close(self) -> None:
        for process in list(self._processes):
            await self._end(process)

    async def _end(self, process: ForkServerProcess) -> None:
        if process not in self._processes:
            return
        self._processes.discard(process)
        if process.pid is None:
            return
        if process.exitcode is None:
            process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await _readable(process.sentinel)
        await asyncio.to_thread(process.join, 5)
        process.close()


async def _readable(sentinel: int) -> None:
    """Until the process has ended: no thread waits for it meanwhile."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(sentinel)
