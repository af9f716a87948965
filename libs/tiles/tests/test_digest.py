"""The hash by which a model knows its views again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.digest import digest

HOUR = 3_600_000_000
DELAYS = View(
    name="origin_departures",
    stream="flights-departed",
    keys=("origin",),
    time_field="departed_at",
    lateness=2 * HOUR,
    event_id="flight_id",
    aggregates=(
        Aggregate(name="mean_delay_3h", function=Function.MEAN, column="dep_delay", window=3 * HOUR, slide=HOUR),
    ),
)


def test_the_same_definition_has_the_same_digest_in_every_process() -> None:
    assert digest(DELAYS) == digest(replace(DELAYS))
    assert digest(DELAYS) == "9a94136da1a397c7a94d179f26997a86db00f3746ce25b0e5b37c404606a0cd3"


@pytest.mark.parametrize(
    "change",
    [
        {"keys": ("dest",)},
        {"lateness": HOUR},
        {"stream": "flights-landed"},
        {"event_id": None},
        {"aggregates": (replace(DELAYS.aggregates[0], window=6 * HOUR),)},
        {"aggregates": (replace(DELAYS.aggregates[0], function=Function.MAX),)},
    ],
)
def test_whatever_changes_a_value_changes_the_digest(change: dict[str, object]) -> None:
    assert digest(replace(DELAYS, **change)) != digest(DELAYS)  # type: ignore[arg-type]
