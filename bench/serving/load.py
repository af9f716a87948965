"""One question a request: wrk with 16 connections on one core, the server on the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from door import LOAD_CORE, Door

CONNECTIONS = 16
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, kw_only=True)
class Asked:
    rps: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int
    cpu_us: float
    """Of the server, a request."""


def ask(door: Door, path: str, body: bytes, seconds: int, run: int = 0, connections: int = CONNECTIONS) -> Asked:
    """`@@@@@@@@@@@@` in the body becomes another number in each request. Raises RuntimeError where there is no wrk."""
    if (wrk := shutil.which("wrk")) is None:
        raise RuntimeError("this part needs wrk: apt-get install wrk")
    script = Path(__file__).with_name("ask.lua")
    env = {**os.environ, "BENCH_BODY": body.decode(), "BENCH_RUN": f"{run:05d}"}
    args = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), door.url + path]
    spent = door.cpu_seconds()
    done = subprocess.run(["taskset", "-c", LOAD_CORE, *args], env=env, capture_output=True, text=True, check=True)
    spent = door.cpu_seconds() - spent
    said = done.stdout
    requests = int(_found(r"(\d+) requests in", said)[0])
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    errors = (int(wrong[1]) if wrong else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    if errors:
        print(done.stderr[:500])
    return Asked(
        rps=round(float(_found(r"Requests/sec:\s+([\d.]+)", said)[0]), 1),
        p50_ms=_percentile(said, 50),
        p99_ms=_percentile(said, 99),
        requests=requests,
        errors=errors,
        cpu_us=round(spent / max(requests, 1) * 1e6, 1),
    )


def _percentile(said: str, percent: int) -> float:
    value, unit = _found(rf"\s{percent}%\s+([\d.]+)(us|ms|s)", said)
    return round(float(value) * UNITS[unit], 2)


def _found(pattern: str, said: str) -> tuple[str, ...]:
    match = re.search(pattern, said)
    if match is None:
        raise RuntimeError(f"wrk said nothing like {pattern}: {said[:500]}")
    return match.groups()
