"""`millstream status`: what a person reads of the views' freshness."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from millstream_cli.status import _freshness, _remedy


def test_a_view_that_lags_is_told_from_one_whose_stream_is_quiet() -> None:
    noon, later = "2013-06-01T12:00:00Z", "2013-06-01T12:00:30Z"
    screen = StringIO()
    views = [
        {"view": "departures", "stream": "flights-departed", "stream_time": noon, "waits_since": None, "filled": True},
        {"view": "landings", "stream": "flights-landed", "stream_time": noon, "waits_since": later, "filled": True},
        {"view": "weather", "stream": "weather", "stream_time": None, "waits_since": None, "filled": True},
        {"view": "weather_v2", "stream": "weather", "stream_time": noon, "waits_since": None, "filled": False},
    ]
    Console(file=screen, width=120).print(_freshness(views))
    head, *rows = [line.split() for line in screen.getvalue().splitlines()]
    assert head == ["view", "newest", "event", "freshness"]
    assert [" ".join(row) for row in rows] == [
        f"departures {noon} has all of its stream",
        f"landings {noon} behind: an event of {later} waits",
        "weather none yet has all of its stream",
        f"weather_v2 {noon} not filled, cannot be read",
    ]


def test_a_view_without_tiles_is_rebuilt_and_one_that_nobody_defines_is_forgotten() -> None:
    defined = [{"view": "weather_v2"}]
    assert (
        _remedy("weather_v2", defined)
        == "view weather_v2 cannot be read: millstream features rebuild --view weather_v2"
    )
    assert (
        _remedy("weather_v1", defined)
        == "view weather_v1 is not defined any more: millstream features forget weather_v1"
    )
    assert "rebuild" in _remedy("weather_v1", []), "features does not answer: nobody knows what is defined"
