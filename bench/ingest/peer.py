"""The peers, installed into an environment of their own and run on the same core in the same minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from door import Door, opened
from environment import installed
from workload import STREAM

PEERS = ("fastapi", "lean")
LOCK = Path(__file__).parent / "peers" / "lock.txt"
"""The same versions as ours: what differs is how they are used."""


@contextmanager
def peer(name: str, kafka: str, port: int, log: Path) -> Iterator[Door]:
    python = installed("peers-ingest", LOCK)
    args = [str(python), "-m", "uvicorn", f"{name}_peer:app", "--port", str(port), "--no-access-log"]
    args += ["--loop", "uvloop", "--http", "httptools", "--app-dir", str(Path(__file__).parent / "peers")]
    env = {"BENCH_KAFKA": kafka, "BENCH_TOPIC": STREAM, "PYTHONPATH": ""}
    with opened(name, args, port=port, env=env, log=log) as door:
        yield door
