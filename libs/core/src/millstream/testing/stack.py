"""The servers of one local Millstream, started together under one folder: Kafka, Valkey and, if asked for, MLflow."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from millstream.testing.folder import MIN_FREE_BYTES, FolderLock, check_folder, disk_free
from millstream.testing.jars import Progress
from millstream.testing.kafka import BrokerPorts, EmbeddedKafka
from millstream.testing.mlflow import EmbeddedMlflow
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey

LEAVE_WITHIN_SECONDS = 30.0
"""A thread whose server was killed ends at once; one that fetches jars ends when they are there."""


@dataclass(frozen=True, kw_only=True)
class StackPorts:
    """Wanted ports; None means any free one."""

    kafka: int | None = None
    valkey: int | None = None
    mlflow: int | None = None


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the servers of a running stack answer."""

    kafka: str
    """`host:port`, what clients call bootstrap servers."""
    valkey: str
    """Redis URL of database 0."""
    mlflow: str | None
    """Tracking and registry URI; None in a stack without MLflow."""


class Server(Protocol):
    """What the stack asks of each of its servers; all calls block, and come from one thread at a time."""

    @property
    def processes(self) -> list[ManagedProcess]:
        """Handles to what runs; empty before the first start."""

    def start(self) -> None:
        """Return when it serves. Raises EmbeddedError."""

    def stop(self) -> None:
        """Orderly end. Twice is safe."""

    def kill9(self) -> None:
        """Immediate end. Twice is safe, also while another thread waits in `start`."""


class EmbeddedStack:
    """Context manager around the servers under `root`. One stack a folder: a second one is refused."""

    def __init__(
        self,
        root: Path,
        with_mlflow: bool = True,
        progress: Progress = lambda _: None,
        *,
        fresh: bool = False,
        wait_for_mlflow: bool = True,
        ports: StackPorts = StackPorts(),
        min_free_bytes: int = MIN_FREE_BYTES,
        free_bytes: Callable[[Path], int] = disk_free,
    ) -> None:
        """Nothing happens yet.

        `fresh`: `start` removes the servers' data and logs of an earlier run. Without `wait_for_mlflow`, `start` returns
        while MLflow still imports (10 s of CPU) and the caller asks `stack.mlflow.wait_ready()` before it needs it.
        """
        self.root = root.absolute()
        self._fresh = fresh
        self._wait_for_mlflow = wait_for_mlflow
        self._progress = progress
        self._min_free_bytes = min_free_bytes
        self._free_bytes = free_bytes
        self._lock = FolderLock(self.root)
        logs = self.root / "logs"
        kafka_ports = [BrokerPorts(clients=ports.kafka)]
        self.kafka = EmbeddedKafka(self.root / "kafka", kafka_ports, forgets=True, log_dir=logs, progress=progress)
        self.valkey = EmbeddedValkey(self.root / "valkey", ports.valkey, log_dir=logs)
        self.mlflow = EmbeddedMlflow(self.root / "mlflow", ports.mlflow, log_dir=logs) if with_mlflow else None

    def start(self) -> Addresses:
        """Start all at once and return when all serve; if one fails, none is left running.

        Raises FolderUnusable, StackAlreadyRunning, PortTaken, ToolMissing, ServerDidNotStart.
        """
        check_folder(self.root, min_free_bytes=self._min_free_bytes, free_bytes=self._free_bytes)
        self._lock.take()
        try:
            if self._fresh:
                self._wipe()
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self.addresses()

    def _start_all(self) -> None:
        pool = ThreadPoolExecutor(3, thread_name_prefix="stack")
        starts = [pool.submit(self._start, name, server) for name, server in self._servers().items()]
        pool.shutdown(wait=False)
        try:
            for start in as_completed(starts):
                start.result()
        except BaseException:
            # Ctrl-C or a failure while others still start: end what runs, so that their threads end soon, then (in
            # `start`) what those threads had just begun.
            for server in self._servers().values():
                server.kill9()
            wait(starts, timeout=LEAVE_WITHIN_SECONDS)
            raise

    def stop(self) -> None:
        """Stop all at once. Twice is safe."""
        with ThreadPoolExecutor(3, thread_name_prefix="stack") as pool:
            stops = [pool.submit(server.stop) for server in self._servers().values()]
        self._lock.release()
        for stop in stops:
            stop.result()

    def addresses(self) -> Addresses:
        """Where clients connect; meaningful once started."""
        return Addresses(
            kafka=self.kafka.bootstrap, valkey=self.valkey.url, mlflow=self.mlflow.url if self.mlflow else None
        )

    def processes(self) -> list[ManagedProcess]:
        """Every child process, for measuring and for faults."""
        return [process for server in self._servers().values() for process in server.processes]

    def _servers(self) -> dict[str, Server]:
        servers: dict[str, Server] = {"Kafka": self.kafka, "Valkey": self.valkey}
        return servers | {"MLflow": self.mlflow} if self.mlflow else servers

    def _start(self, name: str, server: Server) -> None:
        if server is self.mlflow and not self._wait_for_mlflow:
            self.mlflow.launch()
            return
        began = time.monotonic()
        server.start()
        self._progress(f"{name} is ready ({time.monotonic() - began:.1f} s)")

    def _wipe(self) -> None:
        for old in ("kafka", "valkey", "mlflow", "logs"):
            shutil.rmtree(self.root / old, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
