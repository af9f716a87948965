"""The envelope travels in a record's headers, comes back the same, and bears what strangers write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.contracts.envelope import Envelope, derived_id, envelope_of
from millstream.contracts.times import from_rfc3339

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
MOMENT = st.integers(from_rfc3339("0001-01-01T00:00:00Z"), from_rfc3339("9999-12-31T23:59:59Z"))
ENVELOPES = st.builds(
    Envelope,
    id=TEXT,
    type=TEXT,
    source=TEXT,
    time=st.none() | MOMENT,
    known_at=st.none() | MOMENT,
    causation_id=st.none() | TEXT,
    traceparent=st.none() | TEXT,
)


@given(ENVELOPES)
def test_an_envelope_comes_back_the_same(envelope: Envelope) -> None:
    assert envelope_of(envelope.headers()) == envelope


def test_an_envelope_is_cloudevents_in_kafka_binary_mode() -> None:
    envelope = Envelope(id="1", type="stream.flights.v1", source="replay", known_at=0, causation_id="0")

    headers = envelope.headers()
    assert len(headers) == 7
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_type": b"stream.flights.v1",
        "ce_source": b"replay",
        "content-type": b"application/json",
        "ce_knownat": b"1970-01-01T00:00:00Z",
        "ce_causationid": b"0",
    }


@given(st.lists(st.tuples(st.sampled_from(["ce_id", "ce_time", "ce_knownat", "traceparent", "x-own"]), st.binary())))
def test_whatever_strangers_write_is_an_envelope_or_a_value_error(headers: list[tuple[str, bytes]]) -> None:
    try:
        found = envelope_of(headers)
    except ValueError:
        return
    assert isinstance(found, Envelope)


def test_a_record_without_headers_has_an_empty_envelope() -> None:
    assert envelope_of([]) == Envelope(id="", type="", source="")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (("ce_id", b"\xff"), "ce_id is not UTF-8"),
        (("ce_knownat", b"yesterday"), "ce_time or ce_knownat"),
        (("ce_time", b"2013-01-01T00:00:00"), "no UTC offset"),
    ],
)
def test_a_header_that_cannot_be_read_is_named(header: tuple[str, bytes], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        envelope_of([header])


def test_other_peoples_headers_may_be_any_bytes() -> None:
    assert envelope_of([("x-own", b"\xff\xfe"), ("ce_id", b"1")]).id == "1"


def test_the_same_cause_gives_the_same_id_and_another_cause_another() -> None:
    assert derived_id("flight-delay", "v1") == derived_id("flight-delay", "v1")
    assert derived_id("flight-delay", "v1") != derived_id("flight-delayv", "1")
