"""One release beside the next (N and N−1): each reads what the other writes. `record_release.py` says how a release is kept.

A rolling upgrade has both at once on the same topics, store and packages. What processes of the last release wrote is here. How
they would read what is written now is told by their schemas, since no process of theirs runs in these tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import onnxruntime
import pytest
from redis import Redis
from tests.contracts.record_release import RELEASES, UNTIL, _bytes, restore, windows_of

from millstream.compatibility.json_schema import refusals
from millstream.contracts import generate
from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import EVENTS, decode_event
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, REFERENCE_FILE, Reference, check_file, read_manifest
from millstream.contracts.times import from_rfc3339
from millstream.contracts.topics import MODELS, TOPICS, TRAINING
from millstream.project import load_project
from millstream.runtime.user_events import read_event
from millstream_drift.domain.snapshot import FORMAT, decode_snapshot
from millstream_trainer.domain.state import LoopState

from .test_events import EXAMPLES, holds, type_of

LAST = sorted((path for path in RELEASES.iterdir() if path.is_dir()), key=lambda p: [*map(int, p.name.split("."))])[-1]
SCHEMAS = sorted((LAST / "schemas").glob("*.json"))
RECORDS: list[dict[str, Any]] = [json.loads(line) for line in (LAST / "records.jsonl").read_text().splitlines()]
OURS = [one for one in RECORDS if one["topic"].startswith("millstream-") and one["value"] is not None]


class Kept:
    """A recorded record as a reader gets it."""

    partition, offset, timestamp = 0, 0, 1_357_344_000_000

    def __init__(self, said: dict[str, Any]) -> None:
        self.topic = said["topic"]
        self.key = None if said["key"] is None else said["key"].encode()
        self.value = said["value"].encode()
        self.headers = [(name, value.encode()) for name, value in said["headers"]]


def test_what_each_topic_held_is_kept() -> None:
    heard = {one["topic"] for one in RECORDS}
    assert heard >= {"millstream-predictions", "millstream-verdicts", "millstream-training", "millstream-models"}
    assert heard <= {topic.name for topic in TOPICS} | {"flights-scheduled", "flights-departed", "flights-landed"}


@pytest.mark.parametrize("one", OURS, ids=lambda one: f"{one['topic']} {dict(one['headers'])['ce_type']}")
def test_a_record_of_the_last_release_is_read_and_nothing_of_it_is_lost(one: dict[str, Any]) -> None:
    record = Kept(one)
    envelope = envelope_of(record.headers)
    event = decode_event(envelope.type, record.value)
    assert event is not None, f"{envelope.type} is known no more"
    assert envelope.id
    assert holds(json.loads(event.encode()), json.loads(one["value"]))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_a_type_may_be_read_by_both_releases(schema: Path) -> None:
    """Whatever the one may write by its schema, the other takes by its own."""
    then, today = json.loads(schema.read_text()), generate.CONTRACTS / schema.name
    assert today.exists(), f"{schema.stem} is gone, and what of it lies in topics and packages cannot be read"
    now = json.loads(today.read_text())
    assert [*refusals(then, now)] == [], (
        "what the last release wrote is refused now; it needs a new version of the type"
    )
    assert [*refusals(now, then)] == [], (
        "the last release would refuse what is written now; it needs a new version of the type"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_what_is_said_now_fits_the_schema_of_the_last_release(example: Path) -> None:
    then = LAST / "schemas" / f"{type_of(example)}.json"
    event = decode_event(type_of(example), example.read_bytes())
    assert event is not None
    if then.exists():  # a type that came since is skipped by who does not know it
        jsonschema_rs.validator_for(json.loads(then.read_text())).validate(json.loads(event.encode()))


def test_every_type_of_the_last_release_is_one_of_today() -> None:
    known = {event.type_name for event in EVENTS} | {"manifest.v1", "reference.v1"}
    assert {path.stem for path in SCHEMAS} <= known


def test_a_project_of_the_last_release_is_taken_and_its_events_fit_their_streams() -> None:
    project = load_project(LAST / "project")
    of_streams = [one for one in RECORDS if one["topic"] in project.streams]
    assert {one["topic"] for one in of_streams} == set(project.streams)
    for one in of_streams:
        assert read_event(project.streams[one["topic"]], Kept(one)).event  # type: ignore[arg-type]


def test_the_trainer_goes_on_where_the_last_release_was() -> None:
    """Its state is the fold of its journal and of the model states."""
    state, models = LoopState(loop="flight-delay"), []
    for topic in (TRAINING.name, MODELS.name):
        for one in OURS:
            event = (
                decode_event(dict(one["headers"])["ce_type"], one["value"].encode()) if one["topic"] == topic else None
            )
            if event is not None and getattr(event, "loop", "") == state.loop:
                state = state.apply(event)
                models += [event] if topic == MODELS.name else []
    assert state.champion is not None
    assert state.champion.version == "1"
    assert state.revision == max(one.revision for one in models)  # type: ignore[attr-defined]
    assert state.running is None
    assert state.unfinished is None


def test_a_package_of_the_last_release_is_checked_and_served() -> None:
    folder = LAST / "package"
    [state] = [one for one in OURS if one["topic"] == MODELS.name][-1:]
    ref = json.loads(state["value"])["champion"]
    manifest = read_manifest((folder / MANIFEST_FILE).read_bytes(), ref["sha256"])
    graph = check_file(manifest, MODEL_FILE, (folder / MODEL_FILE).read_bytes())
    raw = check_file(manifest, REFERENCE_FILE, (folder / REFERENCE_FILE).read_bytes())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    assert [one.name for one in session.get_inputs()] == [column.name for column in manifest.inputs]
    assert msgspec.json.decode(raw, type=Reference).holdout_rows > 0
    for kept, file in ((manifest, "manifest.v1"), (msgspec.json.decode(raw, type=Reference), "reference.v1")):
        then = json.loads((LAST / "schemas" / f"{file}.json").read_text())
        jsonschema_rs.validator_for(then).validate(json.loads(msgspec.json.encode(kept)))


def test_drift_goes_on_from_the_last_releases_snapshot_or_begins_anew_and_says_so() -> None:
    store = json.loads((LAST / "valkey.json").read_text())
    [raw] = [_bytes(value) for key, (_, value) in store.items() if _bytes(key).endswith(b":drift:snapshot")]
    if not raw.startswith(FORMAT):
        with pytest.raises(ValueError, match="this release reads"):  # never half understood
            decode_snapshot(raw)
        return
    snapshot = decode_snapshot(raw)
    assert snapshot.merge.next, "positions"
    assert snapshot.lately is not None


@pytest.mark.connected
def test_windows_in_the_store_of_the_last_release_are_read_as_it_read_them(valkey_url: str) -> None:
    redis = Redis.from_url(valkey_url)
    restore(redis, json.loads((LAST / "valkey.json").read_text()))
    redis.close()
    said = json.loads((LAST / "windows.json").read_text())

    found = windows_of(valkey_url, LAST / "project", from_rfc3339(UNTIL))

    assert found == said
    values = [value for view in said.values() for column in view.values() for value in column if value]
    assert len(values) >= 15, "windows with something in them"
