"""A stream without an id field: an event that comes again counts once, for its envelope says that it is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from millstream.contracts.envelope import INGEST
from millstream.testing.kafka import EmbeddedKafka

from .features_airfield import Sent, airfield

NOON = "2013-06-01T12:00:00Z"


def sent(number: int, source: str | None, id: str | None) -> Sent:
    flight: dict[str, Any] = {"flight_id": f"F{number}", "departed_at": "2013-06-01T11:30:00Z"}
    said = {"ce_source": source, "ce_id": id}
    headers = tuple((name, value.encode()) for name, value in said.items() if value is not None)
    return Sent(flight | {"tailnum": "N1", "origin": "JFK", "delay": 5.0}, headers=headers)


async def test_an_event_that_was_sent_again_counts_once(
    kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path, unique_name: Callable[[str], str]
) -> None:
    stream = unique_name("gate-readings")
    async with airfield(kafka, valkey_url, tmp_path, stream, known_by="", namespace="retries") as field:
        retried = sent(1, INGEST, "3f8a")
        await field.departs(retried, retried)  # in one batch
        await field.departs(retried)  # and later
        await field.departs(sent(2, "/gates/ewr", "1"), sent(3, "/gates/jfk", "1"), sent(2, "/gates/ewr", "1"))
        await field.departs(sent(4, None, None), sent(4, None, None))  # nobody says that these are one

        row = [{"tailnum": "N1", "origin": "JFK", "gate": 1}]
        for [found] in (await field.online(row, NOON), await field.offline(row, NOON)):
            assert (found["by_tail__count"], found["by_route__count"]) == (5, 5)
