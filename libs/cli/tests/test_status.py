"""`millstream status`: what a person reads of the views and the loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from io import StringIO

import httpx
import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console

from millstream_cli.loop_lines import lines_of
from millstream_cli.status import _freshness, _remedy, phases_of, with_phase
from millstream_trainer.metrics import TrainerMetrics

from .exposed import exposed


@pytest.fixture
def trainer() -> Iterator[tuple[TrainerMetrics, str]]:
    registry = CollectorRegistry()
    with exposed(registry) as url:
        yield TrainerMetrics(registry), url


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


LOOP = {
    "loop": "flight-delay",
    "champion": {"version": "3"},
    "running": None,
    "last_decision": None,
    "next_schedule": None,
}


def test_an_older_trainer_s_loop_is_one_line() -> None:
    assert lines_of(LOOP) == ["flight-delay: champion is version 3"]
    assert lines_of({"loop": "new"}) == ["new: no model yet"]


async def test_a_run_under_way_says_its_phase(trainer: tuple[TrainerMetrics, str]) -> None:
    metrics, address = trainer
    loop = LOOP | {"running": {"run": "9a91", "cause": "drift", "attempt": 1, "at": "2013-06-15T00:00:00Z"}}
    async with httpx.AsyncClient() as http:
        assert lines_of(with_phase(loop, await phases_of(http, address)))[0].endswith("run 9a91 under way")
        metrics.in_phase("another", "fit")
        metrics.in_phase("flight-delay", "dataset")
        metrics.in_phase("flight-delay", "choice")
        phases = await phases_of(http, address)
    assert phases == {"another": "fit", "flight-delay": "choice"}
    told = with_phase(loop, phases)
    assert told["running"]["phase"] == "choice"
    assert lines_of(told) == ["flight-delay: champion is version 3; run 9a91 under way, phase choice"]
    assert with_phase(LOOP, phases) == LOOP


def test_who_does_not_answer_has_no_phase() -> None:
    async def asked() -> dict[str, str]:
        async with httpx.AsyncClient() as http:
            return await phases_of(http, "http://127.0.0.1:9")

    assert asyncio.run(asked()) == {}
    loop = LOOP | {"running": {"run": "9a91", "attempt": 2}}
    assert lines_of(with_phase(loop, {}))[0].endswith("run 9a91 under way, attempt 2")


def test_a_schedule_that_stream_time_has_passed_is_due() -> None:
    loop = LOOP | {"next_schedule": "2013-06-16T00:00:00Z"}
    assert lines_of(loop | {"stream_time": "2013-06-15T23:59:59.5Z"}) == [
        "flight-delay: champion is version 3; next schedule 2013-06-16T00:00:00Z"
    ]
    assert lines_of(loop | {"stream_time": "2013-06-16T00:00:00Z"}) == [
        "flight-delay: champion is version 3; schedule due since 2013-06-16T00:00:00Z"
    ]


def test_a_loop_says_what_is_under_way_held_behind_and_waits() -> None:
    compared = {"finding": "undecided", "pairs": 1200, "difference": -0.01, "low": -0.02, "high": 0.001}
    loop = LOOP | {
        "revision": 7,
        "trial": {"version": "4", "step": "canary", "share": 0.1} | compared,
        "watch_until": "2013-06-18T00:00:00Z",
        "watch": {"version": "3", "against": "2", "finding": None, "pairs": 0},
        "promoting": {"version": "3", "revision": 7, "waits_for": ["serving-1", "serving-2"]},
        "waiting": {"reason": "quiet hours until 06:00", "until": "2013-06-16T06:00:00Z"},
        "frozen": "Ada: Black Friday",
        "pinned": "3",
        "pending": [{"run": "9a91", "reason": "drift", "expires": "2013-06-20T00:00:00Z"}],
        "broken_since": None,
        "replicas": [
            {"instance": "serving-0", "revision": 7, "behind": 0, "refused": 0},
            {"instance": "serving-1", "revision": 5, "behind": 2, "refused": 0},
            {"instance": "serving-2", "revision": 6, "behind": 1, "refused": 7, "reason": "wrong hash"},
        ],
    }
    assert lines_of(loop)[1:] == [
        "  trial: version 4, canary 10%, undecided after 1,200 pairs: -0.01000 (-0.02000 to +0.00100)",
        "  promoting: version 3, waits for serving-1, serving-2",
        "  watch: until 2013-06-18T00:00:00Z beside version 2, no comparison yet",
        "  waiting: quiet hours until 06:00 (until 2013-06-16T06:00:00Z)",
        "  frozen: Ada: Black Friday; go on with: millstream unfreeze flight-delay",
        "  pinned: version 3; go on with: millstream unpin flight-delay",
        "  pending until 2013-06-20T00:00:00Z: drift; go: millstream approve flight-delay 9a91",
        "  replica serving-1 is behind: revision 5 of 7",
        "  replica serving-2 refuses revision 7: wrong hash",
    ]
