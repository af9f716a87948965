"""Requests of one table of numbers each, as most are: those of one moment are one run, and each has its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import PredictionServed, decode_event
from millstream.contracts.package import InputColumn
from millstream_serving.domain.tensor_json import table_request_of

from .conftest import Stage

INFER = "/v2/models/flight-delay/infer"
NUMBERS = [
    InputColumn(name="distance", source="input", type="number"),
    InputColumn(name="origin_delays__mean", source="feature", type="number"),
]


def table(rows: list[list[float]], datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    data = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    return {"inputs": [{"name": "features", "shape": shape, "datatype": datatype, "data": data}]} | more


@pytest.fixture
async def http(stage: Stage) -> Any:
    transport = httpx.ASGITransport(app=stage.app(hot=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://serving") as client:
        yield client


async def test_each_of_many_has_the_answer_and_the_record_of_its_own_rows(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    await stage.obey(stage.package("3", lambda row: float(np.nan_to_num(row["distance"])) / 100, inputs=NUMBERS))
    asked = [table([[number + row, 7.5] for row in range(1 + number % 3)], id=f"{number}") for number in range(20)]
    found = await asyncio.gather(*(http.post(INFER, json=one) for one in asked))
    records = {}
    for one in stage.publisher.sent:
        record = decode_event(envelope_of(one.headers).type, one.value)
        assert isinstance(record, PredictionServed)
        records[record.id] = record, envelope_of(one.headers)
    assert len(records) == len({record.question for record, _ in records.values()}) == sum(1 + n % 3 for n in range(20))
    for number, response in enumerate(found):
        said = response.json()
        (output,) = said["outputs"]
        rows = 1 + number % 3
        assert (said["id"], output["shape"]) == (f"{number}", [rows])
        assert output["data"] == [float(np.float32((number + row) / 100)) for row in range(rows)]
        if rows == 1:
            record, envelope = records[said["parameters"]["prediction_id"]]
            assert (record.inputs, record.features) == ({"distance": number}, {"origin_delays__mean": 7.5})
            assert envelope.causation_id == f"{number}"


async def test_numbers_of_one_datatype_are_not_those_of_another(stage: Stage, http: httpx.AsyncClient) -> None:
    """0.1 is another number in 32 bits, also beside callers who send 64."""
    await stage.obey(stage.package("3", lambda row: 0.5, inputs=NUMBERS))
    kinds = ["FP32", "FP64"] * 4
    found = await asyncio.gather(*(http.post(INFER, json=table([[0.1, 1e39]], kind)) for kind in kinds))
    read = {}
    for one in stage.publisher.sent:
        record = decode_event(envelope_of(one.headers).type, one.value)
        assert isinstance(record, PredictionServed)
        read[record.id] = record.inputs["distance"], record.features["origin_delays__mean"]
    said = [read[one.json()["parameters"]["prediction_id"]] for one in found]
    # Beyond float32 is infinity, which JSON has no word for but null.
    assert said == [(float(np.float32(0.1)), None), (0.1, 1e39)] * 4


async def test_one_whose_model_fails_fails_alone(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(stage.package("3", lambda row: 2.0 if row["distance"] == 9 else 0.5, inputs=NUMBERS))
    found = await asyncio.gather(*(http.post(INFER, json=table([[float(number), 1.0]])) for number in (9, 1, 2)))
    assert [one.status_code for one in found] == [503, 200, 200]
    assert "rows 0;" in found[0].json()["error"]


async def test_a_table_that_does_not_fit_is_told_as_ever(stage: Stage, http: httpx.AsyncClient) -> None:
    await stage.obey(stage.package("3", lambda row: 0.5, inputs=NUMBERS))
    narrow = await http.post(INFER, json=table([[1.0]]))
    assert (narrow.status_code, narrow.json()["error"]) == (
        400,
        "input 'features': FP32 of shape [1, 1]; send FP32 of shape [n, 2]: distance, origin_delays__mean",
    )
    many = await http.post(INFER, json=table([[1.0, 2.0]] * 1_001))
    assert many.status_code == 400
    assert many.json()["error"].startswith("1001 rows; send 1 to 1,000")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"inputs": []}',
        b'{"inputs": [{"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [null]}]}',
        b'{"inputs": [{"name": "a", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}',
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}]}',
        b'{"inputs": [{"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1]}]}',
        b'{"inputs": [{"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [1]}], "outputs": []}',
    ],
)
def test_whatever_is_more_than_a_table_goes_the_long_way(raw: bytes) -> None:
    assert table_request_of(raw) is None
