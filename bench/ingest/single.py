"""One event a request: wrk with 16 connections on one core, the server on the other, Kafka on the load's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from door import LOAD_CORE, Door
from workload import SINGLE, event

CONNECTIONS = 16
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, kw_only=True)
class Single:
    rps: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float
    """Of the server, a request."""


def single(door: Door, seconds: int, run: int) -> Single:
    """Raises RuntimeError where there is no wrk."""
    if (wrk := shutil.which("wrk")) is None:
        raise RuntimeError("this part needs wrk: apt-get install wrk")
    script = Path(__file__).with_name("single.lua")
    env = {**os.environ, "BENCH_EVENT": event(0).decode(), "BENCH_RUN": f"{run:05d}"}
    args = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script), door.url + SINGLE]
    spent = door.cpu_seconds()
    done = subprocess.run(["taskset", "-c", LOAD_CORE, *args], env=env, capture_output=True, text=True, check=True)
    spent = door.cpu_seconds() - spent
    said = done.stdout
    requests = int(re.search(r"(\d+) requests in", said)[1])
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Single(
        rps=round(float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), 1),
        p50_ms=_percentile(said, 50),
        p99_ms=_percentile(said, 99),
        errors=int(wrong[1]) if wrong else 0,
        cpu_us=round(spent / requests * 1e6, 1),
    )


def _percentile(said: str, percent: int) -> float:
    value, unit = re.search(rf"\s{percent}%\s+([\d.]+)(us|ms|s)", said).groups()
    return round(float(value) * UNITS[unit], 2)
