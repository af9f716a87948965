"""What three replicas do together: how soon a rollback is obeyed by all, and what planted challengers cost while they answer.

Real serving processes on one Kafka and one Valkey, asked over HTTP and over Kafka all the while. The model states are those
that trainer writes; no trainer runs, so that each comes when the bench wants it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
from graphs import RANGES, trees
from kinds import NEVER_ANSWER, World
from load import Load, under_load
from mill import Mill, running

from millstream.contracts.events import ModelRef, PredictionServed, Step
from millstream.contracts.tasks import PROBABILITY
from millstream.contracts.times import now, to_datetime

REPLICAS = 3
HTTP_RATE, KAFKA_RATE = 100.0, 20.0
"""Questions a second over all replicas."""
ROLLBACKS = 5
WARM_UP = 5.0
"""Seconds of load before anything is measured."""
BEFORE = 2.0
"""Seconds that the champion answers until it is rolled back."""
TRIAL = 10.0
"""Seconds that a planted challenger is in the canary."""
SHARE = 0.5


def run(rollbacks: int = ROLLBACKS, trial: float = TRIAL) -> dict[str, Any]:
    """Seconds until a rollback is obeyed by all, requests that failed meanwhile, and per planted fault what came of it."""
    return asyncio.run(_run(rollbacks, trial))


async def _run(rollbacks: int, trial: float) -> dict[str, Any]:
    async with running(REPLICAS) as mill:
        # All before the load: fitting would hold up the callers, who are in this process.
        inputs = [column.name for column in mill.inputs]
        old, new = (mill.package(str(seed), trees(inputs, seed)) for seed in (1, 2))
        world = World(inputs)
        champion = mill.package("3", world.champion())
        graphs = world.challengers()
        challengers = {
            kind: mill.package(str(4 + number), graph) for number, (kind, graph) in enumerate(graphs.items())
        }
        await mill.state(old)
        async with under_load(mill, HTTP_RATE, KAFKA_RATE) as load:
            await asyncio.sleep(WARM_UP)
            began = time.perf_counter()
            # On watch the champion before is loaded and beside the new one; later it has to be read from its package.
            watched = [await _rolled_back(mill, load, old, new, watched=True) for _ in range(rollbacks)]
            unwatched = [await _rolled_back(mill, load, old, new, watched=False) for _ in range(rollbacks)]
            ended = time.perf_counter()
            statuses = _statuses(load, began, ended)
            rates = _rates(load, began, ended)
            await load.obeyed(await mill.state(champion))
            planted = {}
            for kind, model in challengers.items():
                answered, figures = await _tried(mill, load, world, champion, model, trial)
                # How many a rollout lets the others answer `planted` says: here each has half of the entities.
                named = "answered_by_challenger" if kind in NEVER_ANSWER else "answered_in_canary"
                planted[kind] = {named: answered, **figures}
        return {
            "rollbacks": len(watched) + len(unwatched),
            "rollback_seconds_max": round(max(*watched, *unwatched), 3),
            "rollback_seconds_watched": [round(one, 3) for one in watched],
            "rollback_seconds_unwatched": [round(one, 3) for one in unwatched],
            "rollback_requests": sum(statuses.values()),
            "rollback_failed_requests": sum(count for status, count in statuses.items() if not 200 <= status < 300),
            "rollback_http_timeouts": statuses[0],
            "rollback_callers": rates,
            "planted": planted,
        }


async def _rolled_back(mill: Mill, load: Load, old: ModelRef, new: ModelRef, *, watched: bool) -> float:
    """Seconds from Kafka's word on the state until the last answer by `new`, and until the last replica says it obeys."""
    until = to_datetime(now()) + timedelta(days=2) if watched else None
    await load.obeyed(await mill.state(new, previous=old, watch_until=until))
    began = time.perf_counter()
    await asyncio.sleep(BEFORE)
    revision = await mill.state(old, Step.ROLLED_BACK)
    word = time.perf_counter()
    last = await load.obeyed(revision)
    await load.settled()
    answered = [one.at for one in load.heard.replies if one.version == new.version]
    on_record = [at for at, one in load.heard.answers if one.version == new.version]
    if not all(times and times[-1] > began for times in (answered, on_record)):
        raise RuntimeError(f"version {new.version} answered nobody: there was nothing to roll back")
    return max(last - word, answered[-1] - word, on_record[-1] - word)


async def _tried(
    mill: Mill, load: Load, world: World, champion: ModelRef, challenger: ModelRef, seconds: float
) -> tuple[int, dict[str, Any]]:
    """A canary of a planted challenger: the questions that it answered, and what came of all of that time."""
    await load.obeyed(
        await mill.state(champion, Step.CANARY, challenger=challenger, share=SHARE, since=to_datetime(now()))
    )
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    ended = time.perf_counter()
    await load.obeyed(await mill.state(champion, Step.REJECTED))
    await load.settled()
    asked = {question for at, question in load.heard.sent if began <= at <= ended}
    ids: dict[str, set[str]] = {question: set() for question in asked}
    for _, one in load.heard.answers:
        if one.question in asked:
            ids[one.question].add(one.id)
    statuses = _statuses(load, began, ended)
    both = [
        one for _, one in load.heard.answers if challenger.version in (one.version, one.other and one.other.version)
    ]
    fallbacks = Counter(one.fallback for one in both if one.fallback)
    answered = sum(one.version == challenger.version for one in both)
    return answered, {
        "fallbacks": dict(fallbacks),
        **_worse_by(world, both, challenger),
        "http_requests": sum(statuses.values()),
        "http_5xx": sum(count for status, count in statuses.items() if status >= 500),
        "http_timeouts": statuses[0],
        "kafka_questions": len(asked),
        "lost": sum(len(found) != 1 for found in ids.values()),
        **_rates(load, began, ended),
    }


def _worse_by(world: World, both: Iterable[PredictionServed], challenger: ModelRef) -> dict[str, float]:
    """How much worse it was on the questions to which both had an answer; nothing where there was none."""
    pairs = [
        (one.inputs, one.other.output, one.output)
        if one.version == challenger.version
        else (one.inputs, one.output, one.other.output)
        for one in both
        if one.other is not None and one.output and one.other.output
    ]
    if not pairs:
        return {}
    columns = {name: np.array([float(inputs[name] or 0) for inputs, _, _ in pairs]) for name in RANGES}
    own, theirs = (np.array([pair[side][PROBABILITY] for pair in pairs]) for side in (1, 2))
    return {"pairs": len(pairs), **world.worse_by(columns, own, theirs)}


def _statuses(load: Load, began: float, ended: float) -> Counter[int]:
    return Counter(one.status for one in load.heard.replies if began <= one.asked <= ended)


def _rates(load: Load, began: float, ended: float) -> dict[str, float]:
    """How hard was asked, how long callers waited, what of it was serving's reading and scoring, and what the load's own."""

    def among(found: Iterable[tuple[float, float]]) -> list[float]:
        return sorted(1_000 * value for at, value in found if began <= at <= ended)

    took = among((one.asked, one.at - one.asked) for one in load.heard.replies)
    served = among((at, one.timings_ms["total"] / 1_000) for at, one in load.heard.answers if one.transport == "http")
    return {
        "http_per_second": round(len(took) / (ended - began)),
        "http_ms_p50": round(statistics.median(took), 1),
        "http_ms_p99": round(took[int(len(took) * 0.99)], 1),
        "served_ms_p99": round(served[int(len(served) * 0.99)], 1),
        "load_behind_ms_max": round(among(load.heard.behind)[-1], 1),
    }


if __name__ == "__main__":
    print(run())
