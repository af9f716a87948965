"""History from the lake: seconds and memory by size, from files on disk to features in memory, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow as pa
from join import DAYS, HOUR, KEYS, MINUTE, Joined, views

from millstream_tiles.history import Asked, history
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import MICROS, table_schema

DAY = 24 * HOUR
SCHEMA = table_schema({"properties": {**{key: {"type": "integer"} for key in KEYS}, "delay": {"type": "number"}}})


def fill(lake: Lake, events: int) -> None:
    """The same two months as in `join.history`, a commit a day."""
    rng, mine = np.random.default_rng(3), events // DAYS
    for day in range(DAYS):
        when = np.sort(rng.integers(day * DAY, (day + 1) * DAY, mine))
        late = np.where(rng.random(mine) < 0.1, rng.integers(0, 30 * MINUTE, mine), 0)
        columns = {
            "_event_time": pa.array(when).cast(MICROS),
            "_known_at": pa.array(when + late).cast(MICROS),
            "_partition": pa.array(np.zeros(mine, dtype=np.int32)),
            "_offset": pa.array(np.arange(day * mine, (day + 1) * mine)),
            "_id": pa.nulls(mine, pa.string()),
            "_date": pa.array(when).cast(MICROS).cast(pa.date32()),
            "delay": pa.array(rng.normal(10, 30, mine)),
        }
        columns |= {key: pa.array(rng.integers(0, count, mine)) for key, count in KEYS.items()}
        rows = pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
        lake.append("departures", [LakeBatch(partition=0, end=(day + 1) * mine - 1, rows=rows)], group="bench")


def answer(folder: str, events: int, questions: int) -> Joined:
    """Twelve features for questions of two months. The peak is that of the whole process, questions and answers included."""
    rng = np.random.default_rng(4)
    t = np.sort(rng.integers(0, DAYS * DAY, questions))
    asked = pl.DataFrame({key: rng.integers(0, count, questions) for key, count in KEYS.items()})
    began = time.perf_counter()
    found = history(Lake(folder), [Asked(view=view, keys=asked.select(view.keys)) for view in views()], t)
    seconds = round(time.perf_counter() - began, 2)
    # Of this program alone: what getrusage says began with the process that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return Joined(
        events=events,
        questions=questions,
        features=sum(map(len, found)),
        seconds=seconds,
        peak_mb=int(peak.split()[1]) // 1024,
    )


def measured(events: int, questions: int, runs: int) -> Joined:
    """The fastest of some runs over one lake."""
    with TemporaryDirectory(prefix="millstream-bench-") as folder:
        fill(Lake(folder), events)
        command = [sys.executable, __file__, folder, str(events), str(questions)]
        found = []
        for _ in range(runs):
            said = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(Joined(**json.loads(said.stdout)))
            print(found[-1], file=sys.stderr)
    return min(found, key=lambda one: one.seconds)


def plot(sizes: Sequence[Joined], path: Path) -> None:
    """Seconds and memory against events, both logarithmic: a line of slope one is linear, a level one is bounded."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    events = [one.events for one in sizes]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.loglog(events, [one.seconds for one in sizes], "o-", label="measured")
    left.loglog(events, [sizes[0].seconds * e / events[0] for e in events], ":", color="gray", label="linear")
    left.set(xlabel="events", ylabel="seconds", title="time")
    left.legend(frameon=False)
    right.loglog(events, [one.peak_mb for one in sizes], "o-")
    right.axhline(4096, linestyle=":", color="gray")
    right.set(xlabel="events", ylabel="MiB", title="peak memory (dotted: 4 GiB)", ylim=(100, 8192))
    for one in sizes:
        for axes, value in ((left, one.seconds), (right, one.peak_mb)):
            where = {"textcoords": "offset points", "xytext": (0, 8), "fontsize": 7}
            axes.annotate(f"{one.questions:,} questions", (one.events, value), **where)
    figure.savefig(path)


if __name__ == "__main__":
    print(json.dumps(vars(answer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
