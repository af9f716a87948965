"""What was said in an earlier release can be read in this one, and what is generated from the contracts is current."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from millstream.contracts import generate
from millstream.contracts.events import EVENTS, Event, decode_event
from millstream.contracts.topics import TOPICS, dead_letter_topic, late_topic

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))
"""Records as they lie in somebody's topics. Never edit one: a change that needs it needs a new event type."""


def holds(now: Any, said: Any) -> bool:
    """Whether everything that was `said` is in `now`, which may say more: fields that came later, with their defaults."""
    if isinstance(said, dict):
        return all(key in now and holds(now[key], value) for key, value in said.items())
    if isinstance(said, list):
        return len(now) == len(said) and all(map(holds, now, said))
    return bool(now == said)


def type_of(example: Path) -> str:
    """`millstream.model.state.v1.json` and `millstream.model.state.v1-first.json` are both of that type."""
    return re.sub(r"(\.v\d+)(-[a-z-]+)?$", r"\1", example.stem)


def test_generated_files_are_current() -> None:
    assert generate.stale() == [], "run: make generate"


def test_every_event_type_has_an_example_and_a_topic() -> None:
    assert {type_of(example) for example in EXAMPLES} == {event.type_name for event in EVENTS}
    assert {event for topic in TOPICS for event in topic.events} == set(EVENTS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_decodes_with_todays_code_and_nothing_of_it_is_lost(example: Path) -> None:
    event = decode_event(type_of(example), example.read_bytes())

    assert isinstance(event, Event)
    assert decode_event(event.type_name, event.encode()) == event
    assert holds(json.loads(event.encode()), json.loads(example.read_bytes()))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_the_published_schema(example: Path) -> None:
    schema = json.loads((generate.CONTRACTS / f"{type_of(example)}.json").read_text())

    jsonschema_rs.validator_for(schema).validate(json.loads(example.read_text()))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_field_that_a_newer_release_adds_does_no_harm(example: Path) -> None:
    said: dict[str, Any] = json.loads(example.read_bytes())
    newer = msgspec.json.encode(said | {"added_in_a_later_release": {"deep": [1, 2]}})

    assert decode_event(type_of(example), newer) == decode_event(type_of(example), example.read_bytes())


def test_a_type_of_a_newer_release_is_left_to_others() -> None:
    assert decode_event("millstream.model.state.v9", b"{}") is None


def test_type_names_carry_a_version_and_are_unique() -> None:
    names = [event.type_name for event in EVENTS]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"millstream(\.[a-z]+)+\.v\d+", name) for name in names)


def test_topic_names_have_dashes_only() -> None:
    """Dots and underscores collide in metric names."""
    names = [topic.name for topic in TOPICS]
    names += [dead_letter_topic(name, "features-tiles") for name in names]
    names += [late_topic("flights-departed")]

    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert len(set(names)) == len(names)


def test_every_topic_says_who_writes_it_and_why() -> None:
    for topic in TOPICS:
        assert topic.name.startswith("millstream-")
        assert topic.owner
        assert len(topic.why) > 20
        assert topic.partitions > 0
