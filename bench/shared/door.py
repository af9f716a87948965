"""What is measured: a server on a core of its own; what it needs shares the other core with the load.

The benches of ingest and serving import what is in this folder by `PYTHONPATH=bench/shared`, as the Makefile sets it.
"""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from millstream.testing.process import ManagedProcess

SERVER_CORE, LOAD_CORE = "0", "1"
READY_WITHIN = 180.0
"""Seconds: of peers that import half a gigabyte on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """A server that is asked."""

    url: str
    pid: int
    log: Path

    def cpu_seconds(self) -> float:
        """Of the process and its children: some peers answer in workers."""
        one = psutil.Process(self.pid)
        times = [process.cpu_times() for process in (one, *one.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def rss_mb(self) -> float:
        one = psutil.Process(self.pid)
        return sum(process.memory_info().rss for process in (one, *one.children(recursive=True))) / 2**20


@contextmanager
def opened(
    name: str,
    args: Sequence[str],
    *,
    port: int,
    env: dict[str, str],
    log: Path,
    path: str = "/readyz",
    cwd: Path | None = None,
) -> Iterator[Door]:
    """Runs `args` on SERVER_CORE until it answers at `path`."""
    url = f"http://127.0.0.1:{port}"
    command = ["taskset", "-c", SERVER_CORE, *args]
    if cwd is not None:
        command = ["env", "-C", str(cwd), *command]
    process = ManagedProcess(
        name, command, log=log, env=env, ready=lambda: _answers(url + path), ready_within=READY_WITHIN
    )
    process.start()
    try:
        yield Door(url=url, pid=process.pid or 0, log=log)
    finally:
        process.terminate()


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
