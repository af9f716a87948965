"""`make bench-ingest`: what ingest takes on one core, beside two peers, as JSON in bench/out/ingest.json.

The server has one core; Kafka and the load share another. Parts run in turns with the peers', and the best of a few runs counts
(a neighbour on the machine can only make one worse). What is not asked for stays in the file as it was; see bench/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from door import LOAD_CORE, Door, pin
from ndjson import Batches, batches, ndjson
from ours import ours
from peer import PEERS, peer
from record import console, measure
from single import single
from workload import EVENT_BYTES, PARTITIONS, STREAM, event, project

from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port

OUT = Path(__file__).parents[1] / "out" / "ingest.json"
PARTS = ("single", "ndjson", "peers", "cold")
LIBRARIES = ("aiokafka", "fastapi", "jsonschema-rs", "msgspec", "uvicorn", "uvloop")


class Bench:
    """Kafka, the project, and what each part does with them."""

    def __init__(self, root: Path, kafka: str, asked: argparse.Namespace) -> None:
        self._root, self._kafka, self._asked = root, kafka, asked
        self._project = project(root / "project")
        self._run = 0

    def single(self) -> dict[str, Any]:
        found = [self._single_of("ours") for _ in range(self._asked.runs)]
        one = max(found, key=lambda run: run["rps"])
        return {f"single_{name}": value for name, value in one.items()}

    def ndjson(self) -> dict[str, Any]:
        """Speed by the best of the runs; memory by one body of `--gigabytes`."""
        with ours(self._kafka, self._project, free_port(), self._root / "ingest.log") as door:
            found = [self._apart(ndjson, door, self._asked.events) for _ in range(self._asked.runs)]
            one = max(found, key=lambda run: run.events_per_second)
            long = self._apart(ndjson, door, int(self._asked.gigabytes * 1e9 / (EVENT_BYTES + 1)))
        return {
            "ndjson_events_per_second": one.events_per_second,
            "ndjson_cpu_us": one.cpu_us,
            "ndjson_peak_mb": long.peak_mb,
            "ndjson_grown_mb": long.grown_mb,
            "ndjson_body_gb": round(long.events * (EVENT_BYTES + 1) / 1e9, 2),
        }

    def peers(self) -> dict[str, Any]:
        """Ours and theirs in turns."""
        found: dict[str, list[Any]] = {}
        batched: dict[str, list[Batches]] = {}
        streamed: list[int] = []
        for _ in range(self._asked.runs):
            for name in ("ours", *PEERS):
                found.setdefault(name, []).append(self._single_of(name))
                with self._door(name) as door:
                    batched.setdefault(name, []).append(self._batches_of(name, door))
                    if name == "ours":
                        streamed.append(self._apart(ndjson, door, self._asked.events).events_per_second)
        best = {name: max(runs, key=lambda run: run["rps"]) for name, runs in found.items()}
        most = {name: max(run.events_per_second for run in runs) for name, runs in batched.items()}
        least = {name: min(run.cpu_us for run in runs) for name, runs in batched.items()}
        return {
            "peers": {
                "single": best,
                "batch_events_per_second": most,
                "batch_cpu_us": least,
                "ndjson_events_per_second": max(streamed),
                "single_vs": {name: round(best["ours"]["rps"] / best[name]["rps"], 2) for name in PEERS},
                "batch_vs": {name: round(most["ours"] / most[name], 2) for name in PEERS},
                "batch_cpu_vs": {name: round(least[name] / least["ours"], 2) for name in PEERS},
                "ndjson_vs_batches": {name: round(max(streamed) / most[name], 2) for name in PEERS},
            }
        }

    def cold(self) -> dict[str, Any]:
        """From the start of the process until it is ready, the best of the runs."""
        times = []
        for _ in range(self._asked.runs):
            began = time.perf_counter()
            with ours(self._kafka, self._project, free_port(), self._root / "ingest.log"):
                times.append(time.perf_counter() - began)
        return {"cold_start_s": round(min(times), 2)}

    def _door(self, name: str) -> Any:
        log = self._root / f"{name}.log"
        if name == "ours":
            return ours(self._kafka, self._project, free_port(), log)
        return peer(name, self._kafka, free_port(), log)

    def _single_of(self, name: str) -> dict[str, Any]:
        with self._door(name) as door:
            single(door, 3, self._next())  # what a server learns in its first second is not what is asked
            found = single(door, self._asked.seconds, self._next())
        console.print(f"{name}: {found}", highlight=False)
        return asdict(found)

    def _batches_of(self, name: str, door: Door) -> Batches:
        path = f"/v1/streams/{STREAM}/batch"
        self._apart(batches, door, path, 50_000)
        found: Batches = self._apart(batches, door, path, self._asked.events)
        console.print(f"{name}: {found}", highlight=False)
        return found

    def _apart(self, work: Callable[..., Any], *args: Any) -> Any:
        """In a process of its own: the load has the other core, and a part's threads end with it."""
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(work, (*args, self._next()))
        console.print(f"{work.__name__}: {found}", highlight=False)
        return found

    def _next(self) -> int:
        self._run += 1
        return self._run


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/ingest", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given again for another")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of a run of single events")
    parser.add_argument("--events", type=int, default=1_000_000, help="of a run of NDJSON")
    parser.add_argument("--gigabytes", type=float, default=5.0, help="of the body whose memory is measured")
    asked = parser.parse_args()
    assert len(event(1)) == EVENT_BYTES
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        kafka = EmbeddedKafka(Path(name) / "kafka", log_dir=Path(name))
        with kafka.running():
            pin([process.pid or 0 for process in kafka.processes], LOAD_CORE)
            asyncio.run(
                ensure_topics(
                    kafka.bootstrap, [TopicSpec(name=STREAM, partitions=PARTITIONS, retention=timedelta(days=1))]
                )
            )
            bench = Bench(Path(name), kafka.bootstrap, asked)
            measure(bench, asked.only or PARTS, OUT, LIBRARIES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
