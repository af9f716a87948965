"""The Open Inference Protocol over HTTP: features given, a loop asked, every answer on record."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from millstream.contracts.canary import is_answered_by_challenger
from millstream.contracts.envelope import derived_id, envelope_of
from millstream.contracts.events import Event, PredictionServed, QuestionUnanswered, decode_event
from millstream.contracts.package import InputColumn
from millstream.contracts.times import to_datetime
from millstream_serving.api import inference
from millstream_serving.api.inference import HEADER, LARGEST_REQUEST

from .conftest import INPUTS, NOON, Stage

INFER = "/v2/models/flight-delay/infer"
MEAN = "origin_delays__mean"
NUMBERS = [one for one in INPUTS if one.type == "number"]


def tensor(name: str, data: list[Any], datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data} | more


def question(**changes: dict[str, Any]) -> dict[str, Any]:
    """A flight of B6, as its three columns."""
    columns = {
        "distance": tensor("distance", [2475], "INT64"),
        "carrier": tensor("carrier", ["B6"], "BYTES"),
        MEAN: tensor(MEAN, [12.5]),
    } | changes
    return {"inputs": list(columns.values())}


def hundredth(number: float) -> float:
    return 0.0 if np.isnan(number) else number / 100


def by_mean(row: Mapping[str, Any]) -> float:
    """A hundredth of the mean delay."""
    return hundredth(row[MEAN])


def on_record(stage: Stage) -> list[Event]:
    return [decode_event(envelope_of(one.headers).type, one.value) for one in stage.publisher.sent]


async def test_a_question_with_its_features_is_answered_and_put_on_record(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    stage.features.away = True  # nothing is looked up
    await stage.obey(stage.package("3", by_mean))
    response = await http.post(INFER, json=question() | {"id": "42"})
    assert response.status_code == 200
    said = response.json()
    (record,) = on_record(stage)
    assert isinstance(record, PredictionServed)
    assert said == {
        "model_name": "flight-delay",
        "model_version": "3",
        "id": "42",
        "parameters": {"prediction_id": record.id, "version": "3", "variant": "champion"},
        "outputs": [{"name": "probability", "datatype": "FP32", "shape": [1], "data": [0.125]}],
    }
    assert (record.transport, record.given, record.asked_at) == ("http", True, to_datetime(NOON))
    assert (record.inputs, record.features) == ({"distance": 2475, "carrier": "B6"}, {MEAN: 12.5})
    assert (record.output, record.entities, record.stale_views) == ({"probability": 0.125}, {}, {})
    served = {"loop": "flight-delay", "variant": "champion", "transport": "http"}
    assert stage.metric("millstream_predictions_served_total", **served) == 1


async def test_the_protocols_own_doors(stage: Stage, http: httpx.AsyncClient) -> None:
    stage.health.met("kafka")
    assert (await http.get("/v2")).json() == {
        "name": "millstream",
        "version": "1.2",
        "extensions": ["binary_tensor_data"],
    }
    assert (await http.get("/v2/health/live")).json() == {"live": True}
    assert (await http.get("/v2/health/ready")).json() == {"ready": True}
    not_yet = await http.get("/v2/models/flight-delay/ready")
    assert (not_yet.status_code, not_yet.json().keys()) == (503, {"error"})
    assert (await http.get("/v2/models/flight-delay")).status_code == 503
    champion = stage.package("3", by_mean)
    await stage.obey(champion, challenger=stage.package("4", by_mean), share=0.5)
    for path in ("", "/versions/3", "/versions/4"):
        ready = await http.get(f"/v2/models/flight-delay{path}/ready")
        assert (ready.status_code, ready.json()) == (200, {"name": "flight-delay", "ready": True})
    assert (await http.get("/v2/models/flight-delay/versions/9/ready")).status_code == 404
    assert (await http.get("/v2/models/flight-delay")).json() == {
        "name": "flight-delay",
        "versions": ["3", "4"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "distance", "datatype": "FP32", "shape": [-1, 1]},
            {"name": "carrier", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": MEAN, "datatype": "FP32", "shape": [-1, 1]},
        ],
        "outputs": [{"name": "probability", "datatype": "FP32", "shape": [-1]}],
    }
    stage.health.waiting_for("valkey", "Valkey does not answer")
    away = await http.get("/v2/health/ready")
    assert (away.status_code, away.json()) == (503, {"error": "valkey: Valkey does not answer"})


async def test_several_rows_and_what_may_be_asked_for_beside(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(stage.package("3", by_mean))
    three = question(
        distance=tensor("distance", [100, 200, 300], "FP64", shape=[3, 1]),
        carrier={"name": "carrier", "datatype": "BYTES", "shape": [3, 1], "data": [["B6"], [""], [None]]},
        **{MEAN: tensor(MEAN, [1.0, 2.0, 3.0])},
        flight_id=tensor("flight_id", ["a", "b", "c"], "BYTES"),
    )
    wanted = [{"name": "variant"}, {"name": "probability"}, {"name": "prediction_id"}]
    said = (await http.post(INFER, json=three | {"outputs": wanted})).json()
    assert [one["name"] for one in said["outputs"]] == ["variant", "probability", "prediction_id"]
    variants, probabilities, ids = (one["data"] for one in said["outputs"])
    assert variants == ["champion"] * 3
    assert probabilities == pytest.approx([0.01, 0.02, 0.03])
    assert ids == [derived_id("flight-delay", one) for one in "abc"], "as over every other doorway"
    assert "prediction_id" not in said["parameters"]
    assert [one.key for one in on_record(stage) if isinstance(one, PredictionServed)] == ["a", "b", "c"]
    assert [one.inputs["carrier"] for one in on_record(stage) if isinstance(one, PredictionServed)] == [
        "B6",
        None,
        None,
    ]


async def test_null_is_nan_and_every_number_is_a_number(stage: Stage, http: httpx.AsyncClient) -> None:
    rows: list[Mapping[str, Any]] = []
    await stage.obey(stage.package("3", lambda row: rows.append(row) or 0.5))  # type: ignore[func-returns-value]
    rows.clear()
    for datatype, value in (("BOOL", True), ("INT8", -3), ("UINT64", 2**63), ("FP16", 0.5), ("FP32", None)):
        answer = await http.post(INFER, json=question(distance=tensor("distance", [value], datatype)))
        assert answer.status_code == 200, answer.text
    assert [float(row["distance"]) for row in rows[:4]] == [1.0, -3.0, 2.0**63, 0.5]
    assert np.isnan(rows[4]["distance"])
    assert isinstance(record := on_record(stage)[-1], PredictionServed)
    assert record.inputs["distance"] is None


async def test_numbers_alone_may_come_as_one_tensor(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(stage.package("3", by_mean, inputs=NUMBERS))
    table = {"name": "features", "datatype": "FP32", "shape": [2, 2], "data": [[2475, 5], [100, 6]]}
    for data in (table["data"], [2475, 5, 100, 6]):
        said = (await http.post(INFER, json={"inputs": [table | {"data": data}]})).json()
        assert said["outputs"][0]["data"] == pytest.approx([0.05, 0.06])
    wrong = await http.post(INFER, json={"inputs": [table | {"shape": [4, 1], "data": [1, 2, 3, 4]}]})
    assert wrong.json()["error"].endswith("send FP32 of shape [n, 2]: distance, origin_delays__mean")


async def test_bytes_in_and_out(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(stage.package("3", by_mean))
    distance, carrier = struct.pack("<2f", 2475.0, np.nan), struct.pack("<I", 2) + b"B6" + struct.pack("<I", 0)

    def sized(name: str, datatype: str, size: int) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": size}}

    head = json.dumps(
        {
            "inputs": [
                sized("distance", "FP32", len(distance)),
                tensor(MEAN, [10, 20]),
                sized("carrier", "BYTES", len(carrier)),
            ],
            "outputs": [{"name": "probability", "parameters": {"binary_data": True}}, {"name": "version"}],
        }
    ).encode()
    headers = {HEADER: str(len(head)), "content-type": "application/octet-stream"}
    response = await http.post(INFER, content=head + distance + carrier, headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    size = int(response.headers[HEADER])
    said = json.loads(response.content[:size])
    assert said["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert said["outputs"][1]["data"] == ["3", "3"]
    assert np.frombuffer(response.content[size:], "<f4").tolist() == pytest.approx([0.1, 0.2])
    for broken in (head + distance + carrier[:-1], head + distance + carrier + b"x"):
        assert (await http.post(INFER, content=broken, headers=headers)).status_code == 400
    for length in ("-1", "9" * 30, "²", str(len(head) + 500)):
        raw = {**headers, HEADER: length.encode()}
        refused = await http.post(INFER, content=head + distance + carrier, headers=raw)  # type: ignore[arg-type]
        assert refused.status_code == 400
        assert HEADER in refused.json()["error"]


async def test_in_a_canary_an_entity_has_its_answerer_and_a_version_has_the_champion(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    challenger = stage.package("4", lambda row: 0.75)
    await stage.obey(stage.package("3", by_mean), challenger=challenger, share=0.5)
    found = set()
    for number in range(12):
        ours = is_answered_by_challenger("flight-delay", challenger.run, f"B6-{number}", 0.5)
        wanted = ("4", "challenger") if ours else ("3", "champion")
        by_tensor = question(flight_id=tensor("flight_id", [f"B6-{number}"], "BYTES"))
        for body in (by_tensor, question() | {"parameters": {"entity": f"B6-{number}"}}):
            said = (await http.post(INFER, json=body)).json()
            assert (said["model_version"], said["parameters"]["variant"]) == wanted
        pinned = (await http.post("/v2/models/flight-delay/versions/3/infer", json=by_tensor)).json()
        assert pinned["model_version"] == "3"
        found.add(ours)
    assert found == {True, False}
    trial = await http.post("/v2/models/flight-delay/versions/4/infer", json=question())
    assert trial.status_code == 400
    assert "challenger" in trial.json()["error"]


async def test_a_model_on_trial_is_not_asked_what_it_cannot_answer(stage: Stage, http: httpx.AsyncClient) -> None:
    more = [*INPUTS, InputColumn(name="origin", source="input", type="category")]
    await stage.obey(stage.package("3", by_mean), challenger=stage.package("4", lambda row: 0.5, inputs=more))
    for body, others in ((question(), None), (question(origin=tensor("origin", ["JFK"], "BYTES")), "4")):
        assert (await http.post(INFER, json=body)).status_code == 200
        assert isinstance(record := on_record(stage)[-1], PredictionServed)
        assert (None if record.other is None else record.other.version) == others
    assert stage.metric("millstream_trial_failures_total", loop="flight-delay", role="challenger", reason="raised") == 0


async def test_a_challenger_that_fails_is_answered_for(stage: Stage, http: httpx.AsyncClient) -> None:
    def picky(row: Mapping[str, Any]) -> float:
        return float("nan") if row["distance"] == 2475 else 0.5

    await stage.obey(stage.package("3", by_mean), challenger=stage.package("4", picky), share=1.0)
    said = (await http.post(INFER, json=question())).json()
    assert said["parameters"]["variant"] == "champion"
    assert isinstance(record := on_record(stage)[-1], PredictionServed)
    assert record.fallback == "not_finite"


async def test_what_no_model_answers_is_on_record_and_said(stage: Stage, http: httpx.AsyncClient) -> None:
    assert (
        (await http.post(INFER, json=question())).json()["error"].startswith("flight-delay has no model that answers")
    )

    def picky(row: Mapping[str, Any]) -> float:
        return float("nan") if row["distance"] == 2475 else 0.5

    await stage.obey(stage.package("3", picky))
    response = await http.post(INFER, json=question())
    assert response.status_code == 503
    assert response.json() == {"error": "flight-delay: no model has an answer to rows 0; ask without them"}
    assert isinstance(record := on_record(stage)[-1], QuestionUnanswered)
    assert record.reason == "model_failed"
    stage.publisher.away = True
    away = await http.post(INFER, json=question(distance=tensor("distance", [1])))
    assert (away.status_code, away.headers["retry-after"], away.json().keys()) == (503, "1", {"error"})


BAD: list[tuple[str, Any, str]] = [
    ("no object", [], "the body is no object"),
    ("no inputs", {}, "inputs is missing"),
    ("empty", {"inputs": []}, "input 'distance' is missing; send one tensor for each of distance, carrier, "),
    ("missing", {"inputs": question()["inputs"][:2]}, f"input '{MEAN}' is missing"),
    ("unknown", question(speed=tensor("speed", [1])), "no input 'speed'; send one tensor for each of distance"),
    ("twice", {"inputs": question()["inputs"] * 2}, "comes twice"),
    ("a table", question(features=tensor("features", [1, 2, 3], shape=[1, 3])), "'carrier' is a text"),
    ("datatype", question(distance=tensor("distance", [1], "FLOAT")), "datatype 'FLOAT'; send one of BOOL, INT8"),
    ("no datatype", question(distance={"name": "distance", "shape": [1], "data": [1]}), "datatype None"),
    ("odd datatype", question(distance=tensor("distance", [1]) | {"datatype": []}), "datatype []; send one of BOOL"),
    ("a text", question(distance=tensor("distance", ["1"])), "value 0 is '1'; FP32 takes numbers and null"),
    ("texts", question(distance=tensor("distance", ["1"], "BYTES")), "BYTES, but it is a number"),
    ("true", question(distance=tensor("distance", [True], "INT64")), "value 0 is True; INT64 takes whole numbers"),
    ("null", question(distance=tensor("distance", [None], "INT64")), "a null is NaN in FP32 or FP64"),
    ("too large", question(distance=tensor("distance", [300], "INT8")), "too large for INT8"),
    ("too long", question(distance=tensor("distance", [1, 2], shape=[1])), "2 values; shape [1] has 1"),
    ("endless", question(distance=tensor("distance", [1], shape=[2**60])), "a dimension is a whole number"),
    ("huge", question(distance=tensor("distance", [1], shape=[2**31, 2**31])), "a dimension is a whole number from 0 to 2000"),
    ("negative", question(distance=tensor("distance", [1], shape=[-1])), "a dimension is a whole number from 0"),
    ("no shape", question(distance=tensor("distance", [1], shape=[])), "send [n] or [n, 1]"),
    ("a cube", question(distance=tensor("distance", [1], shape=[1, 1, 1])), "send [n] or [n, 1]"),
    ("wide", question(distance=tensor("distance", [1, 2], shape=[1, 2])), "send [n] or [n, 1]"),
    ("ragged", question(distance=tensor("distance", [[1, 2], [3]], shape=[2, 2])), "a row of data is [3]"),
    ("uneven", question(distance=tensor("distance", [1, 2])), "'distance' has 2 rows, 'carrier' has 1"),
    ("no rows", {"inputs": [one | {"shape": [0], "data": []} for one in question()["inputs"]]}, "0 rows; send 1 to"),
    ("no list", question(distance=tensor("distance", [1]) | {"data": 7}), "data is 7; send a list"),
    ("deep data", question(distance=tensor("distance", [[1]])), "value 0 is [1]"),
    ("a name", question(distance=tensor("distance", [1]) | {"name": 7}), "the name of an input is 7"),
    ("an id", question() | {"id": 7}, "id is 7; send a text"),
    ("an output", question() | {"outputs": [{"name": "odds"}]}, "no output 'odds'; ask for probability, prediction_id"),
    ("classes", question() | {"outputs": [{"name": "probability", "parameters": {"classification": 2}}]}, "not offered"),
    ("an entity", question() | {"parameters": {"entity": [1]}}, "parameter 'entity' is [1]"),
    ("a key", question(flight_id=tensor("flight_id", [1.5])), "it names something; send BYTES or INT64"),
    ("bytes", question(distance={"name": "distance", "shape": [1], "datatype": "FP32", "parameters": {
        "binary_data_size": 4}}), "binary_data_size is 4, and 0 bytes are left"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "said"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
async def test_a_wrong_request_is_told_what_to_send(
    stage: Stage, http: httpx.AsyncClient, body: Any, said: str
) -> None:
    await stage.obey(stage.package("3", by_mean))
    response = await http.post(INFER, json=body)
    assert response.status_code == 400
    assert response.json().keys() == {"error"}
    assert said in response.json()["error"]
    assert not stage.publisher.sent


async def test_a_body_that_is_none_is_refused_in_the_protocols_words(
    stage: Stage, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.obey(stage.package("3", by_mean))
    good = json.dumps(question()).encode()
    rows = [one | {"shape": [1001], "data": one["data"] * 1001} for one in question()["inputs"]]
    for content, headers, status in (
        (b"{", {}, 400),
        (b"\xff", {}, 400),
        (b"[" * 5000, {}, 400),
        (good.replace(b"12.5", b"NaN"), {}, 400),
        (good.replace(b"12.5", b"1e999"), {}, 400),
        (json.dumps({"inputs": rows}).encode(), {}, 400),
        (b" " * (LARGEST_REQUEST + 1), {}, 413),
        (good, {"content-type": "text/plain"}, 415),
        (good, {"content-encoding": "gzip"}, 415),
        (good, {"ce-knownat": "2013-06-01T11:58:00Z"}, 403),
    ):
        response = await http.post(INFER, content=content, headers=headers)
        assert (response.status_code, response.json().keys()) == (status, {"error"}), content[:40]
    assert (await http.post(INFER.replace("flight", "bike"), content=good)).status_code == 404
    unknown = await http.post("/v2/models/flight-delay/versions/9/infer", content=good)
    assert (unknown.status_code, "there are 3 (champion)" in unknown.text) == (404, True)
    monkeypatch.setattr(stage.room, "_most", 100)
    assert (await http.post(INFER, content=good)).status_code == 503
    monkeypatch.undo()
    assert (await http.post(INFER, content=good)).status_code == 200
    assert stage.room.held == 0, "what was held is let go of"


async def test_a_body_is_counted_and_timed_as_it_comes(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 4 * LARGEST_REQUEST:
            sent += 65536
            yield b" " * 65536

    async def trickle() -> AsyncIterator[bytes]:
        yield b'{"inputs":'
        await asyncio.Event().wait()

    assert (await http.post(INFER, content=endless())).status_code == 413
    assert sent <= LARGEST_REQUEST + 2 * 65536
    monkeypatch.setattr(inference, "REQUEST_SECONDS", 0.01)
    late = await http.post(INFER, content=trickle())
    assert (late.status_code, late.json().keys()) == (408, {"error"})


async def test_what_is_not_there_is_said_in_the_protocols_words(http: httpx.AsyncClient) -> None:
    missing = await http.post("/v2/repository/index", json={})
    assert (missing.status_code, missing.json()) == (
        404,
        {"error": "nothing is at /v2/repository/index; /docs shows what there is"},
    )
    wrong = await http.get(INFER)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json() == {"error": f"{INFER} does not take GET, but POST"}
