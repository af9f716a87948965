"""Six days of a kiosk with sixteen tills: one question an hour and till, of which three loops ask three things."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

BEGIN, END = datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 3, 7, tzinfo=UTC)
TILLS = 16
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


def recording() -> dict[str, pl.DataFrame]:
    """Stream → events in the order in which they became known; `known_at` is when (µs, UTC), the rest is the event."""
    rng = np.random.default_rng(20250301)
    hours = pl.datetime_range(BEGIN, END, "1h", closed="left", time_unit="us", eager=True)
    at = pl.concat([hours] * TILLS).sort()
    load = rng.choice([0.2, 0.5, 0.9], len(at))
    visitors = np.exp(2 + 0.5 * rng.normal(size=len(at)))
    score = 3 * (load - 0.5) + 0.5 * rng.normal(size=len(at))
    asked = pl.DataFrame(
        {
            "at": at,
            "till": [f"till-{number:02d}" for number in range(TILLS)] * len(hours),
            "load": load,
            "visitors": visitors.round(2),
            "bought": score > 0,
            "basket": np.where(score < -0.5, "small", np.where(score < 0.8, "middle", "large")),
            "amount": (10 + 4 * score).round(2),
        }
    ).with_columns(ask=pl.format("{}-{}", "till", pl.col("at").dt.strftime("%m%dT%H")))
    now, sold = pl.col("at"), pl.col("at") + timedelta(hours=2)
    return {
        "kiosk-visits": asked.select(
            "till", "visitors", visit="ask", known_at=now.dt.epoch("us"), counted_at=now.dt.strftime(RFC3339)
        ),
        "kiosk-asks": asked.select(
            "ask", "till", "load", known_at=now.dt.epoch("us"), asked_at=now.dt.strftime(RFC3339)
        ),
        "kiosk-sold": asked.select(
            "ask",
            "till",
            "bought",
            "basket",
            "amount",
            known_at=sold.dt.epoch("us"),
            sold_at=sold.dt.strftime(RFC3339),
        ),
    }
