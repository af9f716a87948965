"""The record that docs/topics.md tells other systems to copy is one that the trainer reads."""

from __future__ import annotations

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import Cause, RetrainRequested, decode_event
from millstream.contracts.generate import topic_table


def test_who_copies_the_record_of_the_page_asks_for_a_retrain() -> None:
    block = topic_table().split("```")[1].strip()
    head, _, value = block.partition("\n\n")
    headers = [(name, said.encode()) for name, _, said in (line.partition(": ") for line in head.splitlines())]
    envelope = envelope_of(headers)
    event = decode_event(envelope.type, value.encode())
    assert isinstance(event, RetrainRequested)
    assert (event.id, event.loop, event.cause) == (envelope.id, "flight-delay", Cause.SYSTEM)
