"""What a simulation of the scaler came to: figures, a table in the terminal, a page with charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from millstream_cli.charts import BAD, BLUE, Point, bar, bars
from millstream_cli.page import el, html, table, write
from millstream_cli.scaling import Moment, Outcome
from millstream_cli.scaling_values import Scaled

LINES, COLUMNS = 24, 144
"""Rows in the terminal and bars on the page: each is the worst of its stretch of time."""


def figures(scaled: Scaled, outcome: Outcome) -> dict[str, Any]:
    """For scripts."""
    replicas = [m.replicas for m in outcome.moments]
    return {
        "seconds": len(outcome.moments),
        "peak_rate": round(max(m.rate for m in outcome.moments), 1),
        "least_replicas": min(replicas),
        "most_replicas": max(replicas),
        "replica_hours": round(outcome.replica_hours, 2),
        "replica_hours_at_most": round(scaled.most * len(replicas) / 3600, 2),
        "changes": len(outcome.changes),
        "flaps": outcome.flaps(),
        "peak_lag": round(max(m.lag for m in outcome.moments)),
        "seconds_behind": outcome.behind(_drained(scaled)),
        "left": round(outcome.left),
        "advice": advice(scaled, outcome),
    }


def advice(scaled: Scaled, outcome: Outcome) -> list[str]:
    """What to change, and why. Nothing where all is well."""
    found = []
    rate = scaled.topics[0].records_per_second
    needed = math.ceil(max(m.rate for m in outcome.moments) / rate)
    partitions = max(topic.partitions for topic in scaled.topics)
    if needed > scaled.most:
        more = f"; that needs as many partitions (the largest topic has {partitions})" if needed > partitions else ""
        found.append(f"the peak takes {needed} replicas of {rate:g} records/s, maxReplicas is {scaled.most}{more}")
    elif outcome.behind(_drained(scaled)) > len(outcome.moments) / 20:
        found.append(
            "more lag than drainSeconds allows in over a twentieth of the time although the replicas would do: "
            "a smaller drainSeconds scales sooner, a larger minReplicas does without"
        )
    if flaps := outcome.flaps():
        often = f"{flaps} times a replica went and one came, or the other way round, within a quarter of an hour"
        if any(topic.rate_per_replica is None for topic in scaled.topics):
            found.append(f"{often}: with keda.prometheus the rate counts beside the lag, which calms that")
        else:
            found.append(f"{often}: a smaller keda.busyPercent calms that")
    if scaled.others:
        found.append(f"not simulated: {', '.join(scaled.others)}")
    return found


def show(console: Console, scaled: Scaled, outcome: Outcome) -> None:
    """A row a stretch of time, and what to make of it."""
    stretches = _stretches(outcome.moments, LINES)
    most_lag = max(m.lag for m in outcome.moments)
    most_rate = max(m.rate for m in outcome.moments)
    rows = Table(box=None, pad_edge=False)
    for name in ("from", "records/s", "", "replicas", "", "lag", ""):
        rows.add_column(name, justify="right" if name in ("records/s", "replicas", "lag") else "left", no_wrap=True)
    for at, rate, replicas, lag in stretches:
        rows.add_row(
            _clock(at),
            f"{rate:,.0f}",
            bar(rate, most_rate, 16),
            str(replicas),
            bar(replicas, scaled.most, 16),
            f"{lag:,.0f}",
            bar(lag, most_lag, 16),
        )
    console.print(rows)
    found = figures(scaled, outcome)
    console.print(
        f"\n{found['least_replicas']} to {found['most_replicas']} replicas, {found['changes']} changes, "
        f"{found['replica_hours']:g} replica hours ({found['replica_hours_at_most']:g} with {scaled.most} all the time); "
        f"lag at most {found['peak_lag']:,}, {found['seconds_behind']:,} s above what {scaled.drain_seconds:g} s work off."
    )
    for line in found["advice"]:
        console.print(f"- {line}")


def write_page(file: Path, scaled: Scaled, outcome: Outcome) -> None:
    """One page with three charts."""
    stretches = _stretches(outcome.moments, COLUMNS)

    def drawn(name: str, values: Sequence[float], above: float = math.inf) -> list[Any]:
        points = [
            Point(label=_clock(at), value=value, color=BAD if value > above else BLUE)
            for (at, *_), value in zip(stretches, values, strict=True)
        ]
        return [el("h2", name), bars(points, name)]

    found = figures(scaled, outcome)
    write(
        file,
        html(
            "Scaling",
            el("h1", "Scaling, simulated"),
            *(el("p", line, class_="warn") for line in found["advice"]),
            *drawn("records a second", [rate for _, rate, _, _ in stretches]),
            *drawn("replicas", [replicas for _, _, replicas, _ in stretches]),
            *drawn("lag (red: above the drain time)", [lag for *_, lag in stretches], _drained(scaled)),
            el("h2", "Figures"),
            table(["", ""], [[k.replace("_", " "), f"{v:,}"] for k, v in found.items() if k != "advice"], [1]),
        ),
    )


def _drained(scaled: Scaled) -> float:
    """Records of lag that the replicas there may be work off within the drain time."""
    return scaled.drain_seconds * scaled.topics[0].records_per_second * max(1, scaled.most)


def _stretches(moments: Sequence[Moment], count: int) -> list[tuple[int, float, int, float]]:
    """(first second, highest rate, most replicas, most lag) of each part of the trace."""
    size = max(1, math.ceil(len(moments) / count))
    parts = [(at, moments[at : at + size]) for at in range(0, len(moments), size)]
    return [(at, max(m.rate for m in p), max(m.replicas for m in p), max(m.lag for m in p)) for at, p in parts]


def _clock(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}"
