"""Feast's `push` into its own Redis store: how many rows of views a second, to hold ours against."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from feast_redis import SOURCE, opened, rows
from workload import ENTITIES

from millstream.testing.valkey import EmbeddedValkey

BATCH = 5_000
"""Rows a push, as our worker applies 5,000 events at a time; more is not faster."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What Feast wrote."""

    features: int
    """Of each of the four views."""
    view_rows_per_second: float
    """A pushed row is a row of each view, as an event of ours updates one row of each view."""


def push(*, features: int, batches: int = 4) -> Pushed:
    """Push `batches` times, each newer than the one before, so that every row is written."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        valkey = EmbeddedValkey(Path(name) / "valkey", None, log_dir=Path(name) / "logs")
        with valkey.running():
            store = opened(Path(name) / "feast", valkey.url, features=features)
            start = datetime(2013, 6, 1, tzinfo=UTC)
            frames = [rows(BATCH, features=features, at=start + timedelta(seconds=n)) for n in range(batches + 1)]
            store.push(SOURCE, frames[0])  # connects, and reads the registry
            began = time.perf_counter()
            for frame in frames[1:]:
                store.push(SOURCE, frame)
            seconds = time.perf_counter() - began
    return Pushed(features=features, view_rows_per_second=round(batches * BATCH * len(ENTITIES) / seconds))
