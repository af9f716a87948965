"""Several workers of one service behind one port: one process leads, starts each again when it ends, and serves nothing."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from millstream.errors import BadSetup
from millstream.runtime.settings import ServiceSettings

log = logging.getLogger(__name__)

MOST_WORKERS = 64
"""Each is a whole process with its own models and consumers; more of them are more replicas."""
MOST_RESTARTS = 5
"""Of all workers within RESTARTS_WITHIN. Above that the whole service ends, and whoever runs it sees that."""
RESTARTS_WITHIN = 60.0
PAUSE = 0.5
"""Seconds before a worker starts again, doubled with each restart in the last minute: a crash must not eat a core."""
LAST_GRACE = 8.0
"""Seconds beyond `drain_timeout` until a worker that does not stop is killed: last words and closing connections."""


class Place(BaseModel, frozen=True):
    """Where a worker stands in its crew. Its leader tells it, in MILLSTREAM_PLACE."""

    number: int
    of: int
    listener: int
    """File descriptor of the port that all share. One queue: what waits there when a worker dies another one takes."""
    life: int
    """Read end of a pipe. It ends when the leader is gone, however that came about."""
    folder: Path
    """Each worker listens at its `door` there too, so that any of them can ask all for health and metrics."""

    def door(self, number: int | None = None) -> Path:
        return self.folder / f"{self.number if number is None else number}.sock"


class CrewSettings(ServiceSettings):
    """Settings of a service that may have several workers."""

    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] | Literal["auto"] = 1
    """Processes that share the port and the partitions; `auto`: one for each core that we are given. For a machine of many
    cores without Kubernetes; there replicas are moved, scaled and limited one by one."""
    place: Place | None = None
    """Not for people: what a leader tells its worker."""

    def crew(self) -> int:
        """How many workers; 1 in a worker: it leads nobody."""
        if self.place is not None:
            return 1
        return min(cores(), MOST_WORKERS) if self.workers == "auto" else self.workers

    def of_worker(self, number: int) -> dict[str, str]:
        """What the environment of a worker has for its own."""
        return {"MILLSTREAM_INSTANCE": f"{self.instance}-{number}"}

    def ports_beside(self) -> Sequence[int]:
        """Further ports that every worker will listen on, each for itself."""
        return ()


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those it is pinned to, and no more than its container's quota (cgroup v2)."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        most, period = quota.read_text().split()
        return max(1, min(pinned, math.ceil(int(most) / int(period))))
    return pinned


def lead(listener: socket.socket, settings: CrewSettings, workers: int) -> int:
    """Run `workers` copies of this process on `listener` until told to stop. Returns the exit code, as `serve` has it."""
    with ExitStack() as held:
        for port in settings.ports_beside():
            held.enter_context(_reserve(settings.host, port))
        # Short: the path of a socket may have 104 bytes.
        folder = Path(tempfile.mkdtemp(prefix="mill-"))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        return asyncio.run(Crew(listener, settings, workers, folder).run())


class Crew:
    """The workers, as their leader sees them."""

    def __init__(self, listener: socket.socket, settings: CrewSettings, workers: int, folder: Path) -> None:
        self._listener = listener
        self._settings = settings
        self._workers = workers
        self._folder = folder
        self._stop = asyncio.Event()
        self._code = 0
        self._restarts: deque[float] = deque()

    async def run(self) -> int:
        """Until SIGTERM or SIGINT, or until a worker says that it cannot run as it is set up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        life, held = os.pipe()
        host, port = self._listener.getsockname()[:2]
        log.info("listening", extra={"address": f"http://{host}:{port}", "workers": self._workers})
        try:
            async with asyncio.TaskGroup() as tasks:
                for worker in range(self._workers):
                    tasks.create_task(self._keep(worker, life))
        finally:
            os.close(held)
            os.close(life)
        return self._code

    async def _keep(self, number: int, life: int) -> None:
        while not self._stop.is_set():
            process = await self._start(number, life)
            ended, stop = asyncio.create_task(process.wait()), asyncio.create_task(self._stop.wait())
            await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._end(number, process)
            stop.cancel()
            code = await ended
            if self._stop.is_set():
                # A bug in the last words is one: an orderly stop that was none is told by the exit status.
                self._code = self._code or (1 if code == 1 else 0)
                return
            await self._ended(number, code)

    async def _start(self, number: int, life: int) -> asyncio.subprocess.Process:
        place = Place(number=number, of=self._workers, listener=self._listener.fileno(), life=life, folder=self._folder)
        environment = {"MILLSTREAM_PLACE": place.model_dump_json(), **self._settings.of_worker(number)}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *sys.orig_argv[1:],
            env={**os.environ, **environment},
            pass_fds=(place.listener, place.life),
        )

    async def _end(self, number: int, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._settings.drain_timeout + LAST_GRACE):
                await process.wait()
        except TimeoutError:
            log.error("worker %d did not stop in time and is killed", number)
            self._code = 1
            with suppress(ProcessLookupError):
                process.kill()

    async def _ended(self, number: int, code: int) -> None:
        now = time.monotonic()
        self._restarts.append(now)
        while self._restarts[0] < now - RESTARTS_WITHIN:
            self._restarts.popleft()
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        if code == 2 or len(self._restarts) > MOST_RESTARTS:
            why = "" if code == 2 else f", the last of {len(self._restarts)} that ended within {RESTARTS_WITHIN:.0f} s"
            log.critical("stopping: worker %d ended %s%s", number, how, why)
            self._code = self._code or (2 if code == 2 else 1)
            self._stop.set()
            return
        log.error("worker %d ended %s; it starts again", number, how)
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE * 2.0 ** (len(self._restarts) - 1)):
                await self._stop.wait()


class Seat:
    """A worker's own end of its place: the sockets it serves, and the end of its leader."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def number(self) -> int:
        return self._place.number

    def sockets(self) -> list[socket.socket]:
        """The port that all share, and this worker's own door."""
        door = self._place.door()
        door.unlink(missing_ok=True)  # of the one that stood here before
        own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        own.bind(str(door))
        return [socket.socket(fileno=self._place.listener), own]

    def when_alone(self, stop: Callable[[], None]) -> None:
        """Call `stop`, from another thread, once the leader is gone: nobody else would end this process."""

        def wait() -> None:
            os.read(self._place.life, 1)
            log.error("stopping: the process that leads the workers is gone")
            stop()

        threading.Thread(target=wait, daemon=True, name="leader's life").start()


def place_of(settings: ServiceSettings) -> Place | None:
    """Of a worker; None in a process that is alone."""
    return settings.place if isinstance(settings, CrewSettings) else None


def _reserve(host: str, port: int) -> socket.socket:
    """Hold `port` for the workers, without listening: each opens it for itself, and no stranger's server may beside them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
        shared = socket.socket(family, socket.SOCK_STREAM)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((host, port))
    except OSError as error:
        raise BadSetup(f"cannot listen on {host}:{port}: {error.strerror}; give it another port") from error
    return shared
