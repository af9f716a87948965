"""CloudEvents 1.0 as their own SDK writes them: binary, structured and batched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.conversion import to_binary, to_json, to_structured
from cloudevents.http import CloudEvent

from millstream.contracts.envelope import envelope_of

from .conftest import Airport, departure

ATTRIBUTES = {"id": "7f3a", "source": "/gates/ewr", "type": "aero.departure"}
BATCHED = "application/cloudevents-batch+json"


def cloudevent(data: Any, **attributes: str) -> CloudEvent:
    return CloudEvent(ATTRIBUTES | attributes, data)


@pytest.mark.parametrize("write", [to_binary, to_structured])
async def test_what_the_sdk_sends_is_in_the_log(airport: Airport, write: Any) -> None:
    event = CloudEvent(ATTRIBUTES | {"datacontenttype": "application/json"}, departure())
    headers, body = write(event)

    answer = await airport.http.post("/v1/streams/flights-departed/events", content=body, headers=headers)

    assert answer.status_code == 202, answer.text
    [entry] = airport.log.entries
    assert json.loads(entry.value) == departure()
    envelope = envelope_of(entry.headers)
    assert (envelope.id, envelope.type) == ("2013-01-01-UA-1545-EWR", "stream.flights-departed.v1")
    assert envelope.source == "/gates/ewr", "whoever said it, for the reader of a dead letter"


@pytest.mark.parametrize("write", [to_binary, to_structured])
async def test_a_stream_without_ids_takes_the_cloudevents(airport: Airport, write: Any) -> None:
    event = CloudEvent(ATTRIBUTES | {"datacontenttype": "application/json"}, {"gauge": 7, "at": "2013-01-01T11:00:00Z"})
    headers, body = write(event)

    answer = await airport.http.post("/v1/streams/sensor-readings/events", content=body, headers=headers)

    assert answer.json()["id"] == "7f3a"
    assert envelope_of(airport.log.entries[0].headers).id == "7f3a"


@pytest.mark.parametrize("route", ["events", "batch"])
async def test_a_batch_gets_a_result_for_each(airport: Airport, route: str) -> None:
    good = json.loads(to_json(cloudevent(departure())))
    body = [good, good | {"specversion": "0.3"}, good | {"data": {}}, 5, {k: good[k] for k in good if k != "data"}]

    answer = await airport.post(f"flights-departed/{route}", json.dumps(body), content_type=BATCHED)

    results = answer.json()["results"]
    codes = [result["status"] if "error" not in result else result["error"]["code"] for result in results]
    assert codes == ["accepted", "bad_cloudevent", "schema", "not_an_object", "bad_cloudevent"]
    assert results[1]["error"]["pointer"] == "/specversion"
    assert results[4]["error"]["pointer"] == "/data"


@pytest.mark.parametrize(
    ("attributes", "pointer"),
    [
        ({"id": ""}, "/id"),
        ({"source": 7}, "/source"),
        ({"type": "x" * 2000}, "/type"),
        ({"source": "two\r\nlines: 1"}, "/source"),
        ({"datacontenttype": "text/xml"}, "/datacontenttype"),
        ({"data": None, "data_base64": "aGk="}, ""),
    ],
)
async def test_a_broken_envelope_is_refused(airport: Airport, attributes: dict[str, Any], pointer: str) -> None:
    body = {"specversion": "1.0", **ATTRIBUTES, "data": departure()} | attributes

    answer = await airport.post(
        "flights-departed/events", json.dumps(body), content_type="application/cloudevents+json"
    )

    assert answer.status_code == 422
    assert answer.json()["pointer"] == pointer
    assert airport.log.entries == []


@pytest.mark.parametrize("id", ["", "%0d%0aevil", "x" * 1025])
async def test_headers_cannot_carry_more_than_a_name(airport: Airport, id: str) -> None:
    answer = await airport.send(departure(), ce_specversion="1.0", ce_id=id, ce_source="/x", ce_type="y")

    assert (answer.status_code, answer.json()["error"]) == (422, "bad_cloudevent")


async def test_names_in_headers_may_be_percent_encoded(airport: Airport) -> None:
    await airport.send(departure(), ce_specversion="1.0", ce_id="1", ce_source="/gates/Z%C3%BCrich", ce_type="y")

    assert envelope_of(airport.log.entries[0].headers).source == "/gates/Zürich"
