"""The naive recount over what was sent: the third opinion on a feature, beside online and offline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from millstream.contracts.times import DAY, from_rfc3339
from millstream_cli.comparison import ENTITIES, FEATURES, Skew, compared
from millstream_cli.ticks import Ticks
from millstream_tiles.definition import View
from millstream_tiles.recount import Event, recount


def measure_recount(answers: pl.DataFrame, ticks: Ticks, views: Iterable[View]) -> Skew:
    """Recompute `answers` (rows of `PredictionLog.frame`) by plain loops over the recording, which no service has touched.

    Seconds for some hundreds of answers: it looks at every event of each key's window.
    """
    counted: dict[str, list[float | None]] = {}
    for view in views:
        sent = _Sent(view, ticks)
        names = {aggregate.name: f"{FEATURES}{view.name}__{aggregate.name}" for aggregate in view.aggregates}
        wanted = {name: column for name, column in names.items() if column in answers.columns}
        if not wanted:
            continue
        for answer in answers.iter_rows(named=True):
            key = tuple(answer[ENTITIES + part] for part in view.keys)
            values = recount(view, sent.before(key, answer["asked_at"]), key, answer["asked_at"])
            for name, column in wanted.items():
                value = values[name]
                counted.setdefault(column, []).append(None if isinstance(value, list) else value)
    return compared(answers, pl.DataFrame(counted, schema=dict.fromkeys(counted, pl.Float64)), "recounted")


class _Sent:
    """What was sent of one view's stream, by key."""

    def __init__(self, view: View, ticks: Ticks) -> None:
        self._view = view
        frame = ticks.sent(view.stream).with_columns(_known_at=ticks.known_at(view.stream)).with_row_index("_row")
        keys = [pl.col(name).cast(pl.String).alias(f"_key_{name}") for name in view.keys]
        parts = frame.with_columns(keys).partition_by([f"_key_{name}" for name in view.keys], as_dict=True)
        self._of_key: dict[tuple[Any, ...], pl.DataFrame] = dict(parts)

    def before(self, key: tuple[Any, ...], t: int) -> list[Event]:
        """Events of `key` known by `t`, but for those that are too old for every window whatever their lateness."""
        rows = self._of_key.get(tuple(None if part is None else str(part) for part in key))
        if rows is None:
            return []
        view = self._view
        oldest = t - max(a.window + a.slide for a in view.aggregates) - DAY
        mine = rows.filter(pl.col("_known_at").is_between(oldest, t))
        return [
            Event(
                event_time=from_rfc3339(row[view.time_field]),
                known_at=row["_known_at"],
                offset=row["_row"],
                columns=row,
            )
            for row in mine.iter_rows(named=True)
        ]
