"""Bad input, all of it: what `millstream check` and the service refuse, what becomes a dead letter, and what only looks bad.

The second half is one story on a real Kafka, Valkey and lake. Its judge is the naive recount of the good events: whatever
stands between them must not change a number, online or offline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from millstream.contracts.times import MINUTE, from_rfc3339, to_rfc3339
from millstream.contracts.topics import dead_letter_topic, late_topic
from millstream.project import BadProject, load_project
from millstream.testing.kafka import EmbeddedKafka
from millstream_features.subscribers import LAKE, TILES
from millstream_tiles import describe, open_store, views_of
from millstream_tiles.errors import BadRepo
from millstream_tiles.recount import Event, recount

from .features_airfield import Sent, airfield, write_project

EPOCH = "1970-01-01T00:00:00Z"
NOON = from_rfc3339("2013-06-01T12:00:00Z")

# What can be seen before anything runs.


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ('agg("std")', 'agg("std", "dely")', r"by_tail\.std: no field 'dely' in stream .* did you mean 'delay'\?"),
        ('agg("std")', 'agg("std", "origin")', r"by_tail\.std: std of 'origin', which is string; aggregate a number"),
        ('agg("std")', 'agg("std", "crew")', r"by_tail\.std: std of 'crew', which is array; aggregate a number"),
        ('agg("std")', 'agg("std", "")', r"by_tail: aggregation 'std': no column; only count may go without"),
        (
            'agg("std")',
            'agg("std", slide=timedelta(minutes=7))',
            r"by_tail: aggregation 'std': slide 0:07:00 does not divide window 1:00:00; write for example slide_interval=",
        ),
        ('agg("std")', 'agg("std", slide=timedelta(0), window=-HOUR)', r"by_tail: aggregation 'std': no window; write"),
        ("[tailnum], [agg(", "[], [agg(", r"by_tail: it has no entity; write entities=\[\.\.\.\]"),
        (
            'Entity(name="origin")',
            'Entity(name="origin", join_keys=["crew"])',
            r"by_route: 'crew' of stream flights-departed is array; join by a text, integer or boolean",
        ),
        (
            'Entity(name="origin")',
            'Entity(name="origin", join_keys=["orign"])',
            r"by_route: no field 'orign' in stream flights-departed to join by; did you mean 'origin'\?",
        ),
    ],
    ids=[
        "missing column",
        "text column",
        "list column",
        "no column",
        "slide that does not divide",
        "negative window",
        "no entity",
        "key that is a list",
        "key that no event has",
    ],
)
def test_what_check_can_see_is_told_with_its_place(tmp_path: Path, right: str, wrong: str, says: str) -> None:
    """`millstream check` and the start of every service say it: they read the project by these two calls."""
    project = write_project(tmp_path, right=right, wrong=wrong)
    with pytest.raises((BadRepo, BadProject), match=r"definitions\.py:\d+: " + says):
        load_project(project, describe(project / "features"))


# What only the events show.


_count = iter(range(1_000_000))


def flight(at: str = "2013-06-01T11:55:00Z", **more: Any) -> dict[str, Any]:
    return {"flight_id": f"F{next(_count)}", "departed_at": at, "tailnum": "N1", "origin": "JFK", "delay": 5.0} | more


def literal(name: str, value: bytes) -> bytes:
    """A flight whose field `name` holds what Python's own encoder would not write."""
    return json.dumps(flight(**{name: "@"})).encode().replace(b'"@"', value)


KEYS = [
    "Zürich ✈ 北京 \U0001f6eb",
    "u\u0308",
    "ü",
    "a|b",
    "a%7Cb",
    "a:b {tag} *?[]",
    "null",
    " ",
    "new\nline\ttab",
    "\x00\x7f",
    '""',
    "ü" * 512,
]
"""Tail numbers that only look bad; among them two ways to write one letter, which are two keys."""
SEATS = [3, 3.0, 2**53]
NUMBERS = [-0.0, 0.1, None, 5e-324]
BEYOND = [2**53 + 1, -(2**53 + 1), 2**63, 10**300, -(10**400), 1e308, -1e308]
"""What a view adds up, and doubles do not hold."""

GOOD = [
    *(flight(tailnum=key, delay=float(n)) for n, key in enumerate(KEYS)),
    *(flight(tailnum="b", origin=f"x|{n}", delay=1.0) for n in range(2)),
    flight(tailnum="x|b", origin="1"),
    *(flight(tailnum="N-numbers", delay=number) for number in NUMBERS),
    flight(tailnum="N-numbers"),
    flight(tailnum="N-edge", delay=2**53),
    *(flight(tailnum="N-seats", seats=number) for number in SEATS),
    flight(tailnum=None, gate=2**62),
    flight(tailnum=None, gate=-7),
    flight(tailnum=None, gate=-7.0),
]
JUNK = [
    Sent(literal("delay", b"NaN"), "bad_json"),
    Sent(literal("delay", b"Infinity"), "bad_json"),
    Sent(literal("delay", b"-Infinity"), "bad_json"),
    Sent(literal("delay", b"1e999"), "bad_json"),
    Sent(literal("delay", b"9" * 5000), "bad_json"),
    Sent(literal("tailnum", b'"\\ud800"'), "bad_json"),
    Sent(literal("tailnum", b'"\xff"'), "invalid_utf8"),
    Sent(flight(delay="12"), "schema"),
    Sent(flight(delay="NaN"), "schema"),
    Sent(flight(delay=[1]), "schema"),
    Sent(flight(delay=True), "schema"),
    Sent(flight(tailnum=7), "schema"),
    Sent(flight(gate=1.5), "schema"),
    Sent(flight(tailnum=""), "bad_key"),
    Sent(flight(flight_id=""), "bad_key"),
    Sent(flight(tailnum="ü" * 512 + "x"), "bad_key"),
    Sent(flight(tailnum="x" * 1_040_000), "bad_key"),
    Sent(flight(gate=2**63), "bad_key"),
    *(Sent(flight(tailnum="N-numbers", delay=number), "bad_number") for number in BEYOND),
    Sent(flight(tailnum="N-seats", seats=2**53 + 1), "bad_number"),
    Sent(flight(at="2013-06-01T12:06:00Z"), "too_early"),
    Sent(flight(at="9999-12-31T23:59:59Z"), "too_early"),
    Sent(flight(at="9999-12-31T23:59:59Z"), "too_early", known_at="9999-12-31T23:59:59Z"),
    Sent(flight(), "too_early", known_at="9999-12-31T23:59:59Z"),
    Sent(flight(at="0001-01-01T00:00:00+14:00"), "invalid_time"),
    Sent(flight(at="+10000-01-01T00:00:00Z"), "schema"),
]
LATE = [Sent(flight(at="0001-01-01T00:00:00Z")), Sent(flight(at="1900-01-01T00:00:00Z"))]
BEFORE_1970 = Sent(flight(at="1969-12-31T23:50:00.5Z", tailnum="N-old"), known_at="1969-12-31T23:59:59.5Z")
MINUTES = [
    Sent(flight(at=(when := to_rfc3339(NOON - n * MINUTE)), tailnum="N-minutes", delay=None), known_at=when)
    for n in range(9_999, -1, -1)
]
"""Ten thousand tiles of one key, in one window."""


async def test_nothing_bad_disturbs_what_is_good(
    kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path, unique_name: Callable[[str], str]
) -> None:
    async with airfield(kafka, valkey_url, tmp_path, unique_name("flights-departed")) as field:
        views = views_of(open_store(field.settings.project / "features"))

        def naive(records: Sequence[Sent], rows: Sequence[dict[str, Any]], as_of: str) -> list[dict[str, Any]]:
            events = []
            for offset, one in enumerate(records):
                assert isinstance(one.value, dict)
                time, known = from_rfc3339(one.value["departed_at"]), from_rfc3339(one.known_at)
                events.append(Event(event_time=time, known_at=max(time, known), offset=offset, columns=one.value))
            return [
                {
                    f"{view.name}__{name}": math.nan if value is None else float(value)
                    for view in views.values()
                    for name, value in recount(
                        view, events, tuple(row[key] for key in view.keys), from_rfc3339(as_of)
                    ).items()
                }
                for row in rows
            ]

        await field.departs(BEFORE_1970)
        old = [{"tailnum": "N-old", "origin": "JFK", "gate": 1}]
        (seen,), (expected,) = await field.online(old, EPOCH), naive([BEFORE_1970], old, EPOCH)
        assert seen == pytest.approx(expected, nan_ok=True)
        assert expected["by_tail__count"] == 1

        await field.departs(*MINUTES)
        good = [Sent(value) for value in GOOD]
        mixed: list[Sent] = []
        for n in range(max(len(good), len(JUNK))):
            mixed += good[n : n + 1] + JUNK[n : n + 1]
        await field.departs(*LATE, *mixed)

        junk = [(one.raw, one.reason.encode()) for one in JUNK]
        for group in (TILES, LAKE):
            found = await field.letters(dead_letter_topic(field.stream, group), len(JUNK))
            assert [reason for _, reason in found] == [reason for _, reason in junk]
            assert all(whole.startswith(value) for (value, _), (whole, _) in zip(found, junk, strict=True))
        assert [value for value, _ in await field.letters(late_topic(field.stream), 2)] == [one.raw for one in LATE]

        rows = [
            {"tailnum": key, "origin": origin, "gate": gate}
            for key, origin, gate in [
                *((key, "JFK", 1) for key in KEYS),
                ("b", "x|0", 2**62),
                ("b", "x|1", -7),
                ("x|b", "1", 7),
                ("N-numbers", "JFK", 1),
                ("N-edge", "JFK", 1),
                ("N-seats", "JFK", 1),
                ("N-minutes", "JFK", 1),
                ("N1", "JFK", 1),
            ]
        ]
        noon = "2013-06-01T12:00:00Z"
        said = naive([BEFORE_1970, *MINUTES, *LATE, *good], rows, noon)
        assert said[-2]["by_minute__count"] == 10_000
        assert [one["by_tail__count"] for one in said[: len(KEYS)]] == [1.0] * len(KEYS)
        assert said[-1]["by_route__count"] == 0, "of the junk nothing counts"
        for side in (await field.online(rows, noon), await field.offline(rows, noon)):
            for row, expected, found_there in zip(rows, said, side, strict=True):
                assert found_there == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), row
