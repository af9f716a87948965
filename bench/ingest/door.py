"""What is measured: a server on a core of its own, behind it a real Kafka, which shares the other core with the load."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from millstream.testing.process import ManagedProcess

SERVER_CORE, LOAD_CORE = "0", "1"
READY_WITHIN = 60.0


@dataclass(frozen=True, kw_only=True)
class Door:
    """A server that takes events."""

    url: str
    pid: int
    log: Path

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def rss_mb(self) -> float:
        return psutil.Process(self.pid).memory_info().rss / 2**20


@contextmanager
def opened(
    name: str, args: Sequence[str], *, port: int, env: dict[str, str], log: Path, path: str = "/readyz"
) -> Iterator[Door]:
    """Runs `args` on SERVER_CORE until it answers at `path`."""
    url = f"http://127.0.0.1:{port}"
    command = ["taskset", "-c", SERVER_CORE, *args]
    process = ManagedProcess(
        name, command, log=log, env=env, ready=lambda: _answers(url + path), ready_within=READY_WITHIN
    )
    process.start()
    try:
        yield Door(url=url, pid=process.pid or 0, log=log)
    finally:
        process.terminate()


@contextmanager
def ours(kafka: str, project: Path, port: int, log: Path, **settings: str) -> Iterator[Door]:
    """ingest as it is shipped."""
    env = {"MILLSTREAM_KAFKA": kafka, "MILLSTREAM_PROJECT": str(project), "MILLSTREAM_PORT": str(port)}
    with opened("ingest", [sys.executable, "-m", "millstream_ingest"], port=port, env=env | settings, log=log) as door:
        yield door


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def pin(pids: Sequence[int], core: str) -> None:
    """Keeps running processes, all of their threads, on one core."""
    for pid in pids:
        subprocess.run(["taskset", "-a", "-c", "-p", core, str(pid)], check=True, stdout=subprocess.DEVNULL)


def settle(seconds: float = 1.0) -> None:
    time.sleep(seconds)
