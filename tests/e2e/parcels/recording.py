"""Parcels of nine days: the farther, the later, and the less is known by how much. From `MOVED` on all go far.

A model learns how late they are, and on its holdout that it errs more on far ones: so that it errs more from then on can be
estimated at once, and is not on record for two days.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

BEGIN, MOVED, END = (datetime(2024, 5, day, tzinfo=UTC) for day in (1, 7, 10))
AN_HOUR = 80
CARRIERS = [f"carrier-{number}" for number in range(200)]
DELIVERED_AFTER = timedelta(days=2)
FAR = 700.0
"""Kilometres."""
NEAR_SPREAD, FAR_SPREAD = 5.0, 20.0
"""Minutes."""
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


def recording() -> dict[str, pl.DataFrame]:
    """Stream → events in the order in which they became known; `known_at` is when (µs, UTC), the rest is the event."""
    rng = np.random.default_rng(20240501)
    hours = pl.datetime_range(BEGIN, END, "1h", closed="left", time_unit="us", eager=True)
    at = pl.concat([hours] * AN_HOUR).sort()
    far = (rng.random(len(at)) < 0.2) | (at >= MOVED).to_numpy()
    distance = np.where(far, rng.uniform(FAR, 1000.0, len(at)), rng.uniform(0.0, FAR, len(at)))
    late = 0.04 * distance + rng.normal(size=len(at)) * np.where(far, FAR_SPREAD, NEAR_SPREAD)
    parcels = pl.DataFrame(
        {
            "parcel": [f"parcel-{number}" for number in range(len(at))],
            "at": at,
            "carrier": rng.choice(CARRIERS, len(at)).tolist(),
            "distance": distance.round(1),
            "late": late.round(1),
        }
    )
    sent, delivered = pl.col("at"), pl.col("at") + DELIVERED_AFTER
    return {
        "parcels-sent": parcels.select(
            "parcel", "carrier", "distance", known_at=sent.dt.epoch("us"), sent_at=sent.dt.strftime(RFC3339)
        ),
        "parcels-delivered": parcels.select(
            "parcel", "late", known_at=delivered.dt.epoch("us"), delivered_at=delivered.dt.strftime(RFC3339)
        ),
    }
