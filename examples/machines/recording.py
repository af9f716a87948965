"""Five months of a plant as events: what `millstream replay` and `millstream demo` send. `plant.py` makes them up.

- Each machine reports every hour (`machines-readings`), known a minute later;
- it is asked about every four hours (`machines-checks`, the question);
- an inspector says three hours later what he found (`machines-inspected`, the label).
"""

from __future__ import annotations

import polars as pl
from plant import INSPECTED_AFTER, SENSORS, five_months

SCORED_FROM = "2024-05-01T00:00:00Z"

RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


def recording() -> dict[str, pl.DataFrame]:
    """Stream → events in the order in which they became known; `known_at` is when (µs, UTC), the rest is the event."""
    readings, checks = five_months()
    measured, asked = pl.col("measured_at"), pl.col("asked_at")
    inspected = asked + INSPECTED_AFTER
    checks = checks.with_columns(check=pl.format("{}-{}", "machine", asked.dt.strftime("%Y-%m-%dT%H")))
    return {
        "machines-readings": readings.select(
            reading=pl.format("{}-{}", "machine", measured.dt.strftime("%Y-%m-%dT%H")),
            known_at=(measured + pl.duration(minutes=1)).dt.epoch("us"),
            measured_at=measured.dt.strftime(RFC3339),
            machine="machine",
            **{sensor: pl.col(sensor) for sensor in SENSORS},
        ),
        "machines-checks": checks.select(
            "check",
            known_at=asked.dt.epoch("us"),
            asked_at=asked.dt.strftime(RFC3339),
            machine="machine",
            line="line",
            load="load",
        ),
        "machines-inspected": checks.select(
            "check",
            known_at=inspected.dt.epoch("us"),
            inspected_at=inspected.dt.strftime(RFC3339),
            machine="machine",
            state="state",
        ),
    }
