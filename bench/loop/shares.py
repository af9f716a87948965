"""What a second replica of drift is worth: eight loops as one share, and as two that each read all predictions (ADR 32).

CPU time of the path from a record's bytes to verdicts, without Kafka's client: with a core each, two replicas do as much more
as one share costs over the dearer of two. They are measured in turn, so that what else the machine does falls on both.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from drift import LABELS, answers, bench_loop, judged, record

from millstream.contracts.topics import PREDICTIONS
from millstream_drift.subscribers import shares

LOOPS = 8
"""As many as a mill has that needs a second replica: one loop is never more than one."""


def run(predictions: int = 80_000, runs: int = 3) -> dict[str, Any]:
    """The median run of `runs`: predictions a second of CPU time for one share, and for two side by side."""
    names = [f"loop-{number}" for number in range(LOOPS)]
    loops = {name: bench_loop().model_copy(update={"loop": name}) for name in names}
    questions = [
        record(n, msgspec.structs.replace(one, loop=names[n % LOOPS])) for n, one in enumerate(answers(predictions))
    ]
    said = {PREDICTIONS.name: questions, LABELS: []}
    found = []
    for _ in range(runs):
        whole, dealt = (
            [asyncio.run(judged(said, loops, mine)) for mine in shares(names, count).values()] for count in (1, 2)
        )
        found.append((whole[0] / max(dealt), whole[0], max(dealt)))
    ratio, one, two = sorted(found)[runs // 2]
    return {
        "loops": LOOPS,
        "one_share_per_second": round(predictions / one),
        "two_shares_per_second": round(predictions / two),
        "two_to_one": round(ratio, 2),
        "two_to_one_runs": [round(each, 2) for each, *_ in found],
    }


if __name__ == "__main__":
    print(run())
