"""Whatever bytes come, the answer is one of the table's, never a 500, and what is accepted can be read back."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.contracts.envelope import envelope_of
from millstream_ingest.api import STATUS

from .conftest import Airport, departure

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
TIMES = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.text(max_size=30)
EVENTS = VALUES | st.fixed_dictionaries(
    {},
    optional={
        "flight_id": VALUES | st.text(),
        "tailnum": VALUES | st.text(),
        "departed_at": TIMES,
        "dep_delay": VALUES,
    },
).map(lambda fields: departure(**fields))
BODIES = st.binary(max_size=200) | EVENTS.map(lambda event: json.dumps(event).encode())
BATCHES = st.lists(BODIES, max_size=5)
KINDS = st.sampled_from(["application/json", "application/x-ndjson"])


@settings(max_examples=200, deadline=None)
@given(BODIES)
async def test_no_body_breaks_the_event_route(body: bytes) -> None:
    airport = Airport()
    async with airport.http:
        answer = await airport.post("flights-departed/events", body)

    if answer.status_code == 202:
        [entry] = airport.log.entries
        assert envelope_of(entry.headers).id == answer.json()["id"]
        assert json.loads(entry.value)["flight_id"]
    else:
        assert answer.status_code == STATUS[answer.json()["error"]]
        assert airport.log.entries == []


@settings(max_examples=200, deadline=None)
@given(BATCHES, KINDS, st.binary(max_size=5))
async def test_no_body_breaks_the_batch_route(events: list[bytes], kind: str, tail: bytes) -> None:
    joined = b"[" + b",".join(events) + b"]" if kind == "application/json" else b"\n".join(events)
    airport = Airport()
    async with airport.http:
        answer = await airport.batch(joined + tail, kind)

    said = answer.json()
    if "results" in said:
        assert [result["index"] for result in said["results"]] == list(range(len(said["results"])))
        assert said["accepted"] >= len(airport.log.entries), "an event that comes twice is written once"
        assert len({result.get("id") for result in said["results"]} - {None}) <= len(airport.log.entries)
        assert answer.status_code == (202 if not said["rejected"] else 207 if said["accepted"] else 422)
    else:
        assert answer.status_code == STATUS[said["error"]]
        assert airport.log.entries == []
