"""`millstream features explain`: which key is meant, and what a person reads of tiles that are gone."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from millstream_cli.errors import CommandFailed
from millstream_cli.explain import key_of
from millstream_cli.explain_view import report, show
from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.explain import Explained, Tile, Traces

HOUR = 3_600_000_000
FLIGHTS = Aggregate(name="flights_1h", function=Function.COUNT, column="*", window=HOUR, slide=HOUR // 4)


def view(*keys: str) -> View:
    return View(
        name="departures",
        stream="departed",
        keys=keys,
        time_field="at",
        lateness=HOUR,
        event_id=None,
        aggregates=(FLIGHTS,),
    )


def test_a_key_is_named_or_in_the_views_order() -> None:
    assert key_of(view("origin"), ["origin=JFK"]) == key_of(view("origin"), ["JFK"]) == ["JFK"]
    assert key_of(view("origin", "dest"), ["dest=LAX", "origin=JFK"]) == ["JFK", "LAX"]
    assert key_of(view("origin"), ["origin=a=b"]) == ["a=b"]


@pytest.mark.parametrize(
    ("keys", "given", "says"),
    [
        (["origin"], ["dest=JFK"], "is keyed by origin, not by dest; write origin=VALUE"),
        (["origin", "dest"], ["origin=JFK", "carrier=B6"], "origin, dest, not by carrier; write origin=VALUE dest=VALUE"),
        (["origin", "dest"], ["JFK"], "is keyed by origin, dest, got JFK; write origin=VALUE dest=VALUE"),
    ],
)  # fmt: skip
def test_another_views_key_is_no_value(keys: list[str], given: list[str], says: str) -> None:
    with pytest.raises(CommandFailed, match=says):
        key_of(view(*keys), given)


def test_a_count_whose_tiles_are_gone_is_no_zero() -> None:
    tile = Tile(
        index=4, start=HOUR, end=HOUR + HOUR // 4, online=0, recounted=3, by_now=3, sums=None, events=()
    )  # fmt: skip
    gone = Explained(
        view=view("origin"), aggregate=FLIGHTS, key=("JFK",), t=2 * HOUR, start=HOUR, end=2 * HOUR,
        online=None, held=False, offline=3, recounted=3, tiles=(tile,),
    )  # fmt: skip
    screen = StringIO()
    show([gone], Console(file=screen, width=200), everything=False)
    assert "online not held any more  offline 3  recount 3" in screen.getvalue()
    assert "online not held any more, recount 3" in screen.getvalue()
    assert "online 0" not in screen.getvalue()
    assert "online –" not in screen.getvalue()


@pytest.mark.parametrize(
    ("traces", "says"),
    [
        (Traces(lake=True, online=True), "the lake has events of this key at other times"),
        (Traces(lake=False, online=True), "0 events in the lake at any time, and the online store holds tiles of this key"),
    ],
)  # fmt: skip
def test_a_window_without_events_is_shown(traces: Traces, says: str) -> None:
    quiet = Explained(
        view=view("origin"), aggregate=FLIGHTS, key=("JFK",), t=2 * HOUR, start=HOUR, end=2 * HOUR,
        online=0, held=True, offline=0, recounted=0, tiles=(),
    )  # fmt: skip
    screen = StringIO()
    show([quiet], Console(file=screen, width=200), everything=False, traces=traces)
    assert says in screen.getvalue()
    assert "1970-01-01T01:00:00Z to 1970-01-01T02:00:00Z" in screen.getvalue()
    assert "online 0  offline 0  recount 0  ✓" in screen.getvalue()
    assert "0 events, nothing in any tile" in screen.getvalue()
    assert report([quiet], traces)["lake_has_key"] is traces.lake


def test_a_tile_that_no_event_made_is_shown() -> None:
    tile = Tile(
        index=4, start=HOUR, end=HOUR + HOUR // 4, online=3, recounted=0, by_now=0, sums=None, events=()
    )  # fmt: skip
    odd = Explained(
        view=view("origin"), aggregate=FLIGHTS, key=("JFK",), t=2 * HOUR, start=HOUR, end=2 * HOUR,
        online=3, held=True, offline=0, recounted=0, tiles=(tile,),
    )  # fmt: skip
    screen = StringIO()
    show([odd], Console(file=screen, width=200), everything=False, traces=Traces(lake=False, online=True))
    assert "online 3  offline 0  recount 0  they differ" in screen.getvalue()
    assert "online 3, should be 0, recount 0\n    no event in the lake" in screen.getvalue()
