"""The HTTP doorway: Feast's request on the flights' own definitions, and what is said when it cannot be answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream.contracts.times import from_rfc3339
from millstream.runtime.http import http_app
from millstream_features.adapters.feast_reader import FeastReader
from millstream_features.adapters.memory import MemoryViewTimes
from millstream_features.api import STATUS, add_routes
from millstream_features.ports import ViewTime

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
ASK = "/get-online-features"
ROUTE = {"origin": ["JFK"], "dest": ["LAX"], "carrier": ["B6"], "tailnum": ["N708JB"]}


class Parrot:
    """Says what it was asked, and keeps what it was told to write."""

    def __init__(self) -> None:
        self.rows = self
        self.written: list[dict[str, Any]] = []

    def read(self, **asked: Any) -> dict[str, Any]:
        return asked

    def push(self, **asked: Any) -> None:
        self.written.append(asked)

    def write(self, **asked: Any) -> None:
        self.written.append(asked)


def office(store: Parrot | FeastReader | None) -> httpx.AsyncClient:
    app = http_app(title="features")
    add_routes(app, lambda: store, lambda: store.rows if store is not None else None)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://features")


@pytest.fixture
async def parrot() -> AsyncIterator[httpx.AsyncClient]:
    async with office(Parrot()) as client:
        yield client


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> FeastReader:
    """The real reader, its store away: a question that comes that far is a good one, and answered 503."""
    folder = tmp_path_factory.mktemp("features")
    return FeastReader(
        repo=FLIGHTS / "features",
        registry=folder / "registry.db",
        valkey="redis://127.0.0.1:1/0",
        namespace="flights",
        lake=str(folder / "lake"),
    )


async def ask(feast: FeastReader, **fields: Any) -> httpx.Response:
    question = {"features": ["origin_departures:flights_1h"], "entities": {"origin": ["JFK"]}} | fields
    async with office(feast) as client:
        return await client.post(ASK, json=question)


async def test_a_question_reaches_the_reader_as_feasts_server_would_take_it(parrot: httpx.AsyncClient) -> None:
    answer = await parrot.post(ASK, json={"features": [], "feature_service": "delay_v1", "entities": ROUTE, "x": 1})

    assert answer.status_code == 200
    assert answer.json() == {
        "features": [],
        "service": "delay_v1",
        "entities": ROUTE,
        "full_names": False,
        "with_versions": False,
        "as_of": None,
    }


async def test_feasts_go_client_sends_the_requests_own_data_apart(parrot: httpx.AsyncClient) -> None:
    asked = {"feature_service": "delay_v1", "entities": ROUTE, "request_context": {"hour": [7]}}

    assert (await parrot.post(ASK, json=asked)).json()["entities"] == {"hour": [7]} | ROUTE


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_json"),
        (b'{"entities": {"origin": ["\xff"]}}', 400, "invalid_utf8"),
        (b'{"entities": {"origin": [' + b"[" * 100 + b"]" * 100 + b"]}}", 422, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, 422, "too_deep"),
        (b"[]", 422, "bad_body"),
        (b'{"feature_service": "delay_v1"}', 422, "bad_body"),
        (b'{"feature_service": "delay_v1", "entities": {"origin": "JFK"}}', 422, "bad_body"),
        (b'{"entities": {"origin": ["JFK"]}}', 422, "bad_body"),
        (b'{"features": ["a:b"], "feature_service": "delay_v1", "entities": {"origin": ["JFK"]}}', 422, "bad_body"),
        (b'{"feature_service": "delay_v1", "entities": {"origin": []}}', 422, "bad_body"),
        (b'{"feature_service": "delay_v1", "entities": {"o": ["J"]}, "as_of": "2013-06-01T12:00:00"}', 422, "bad_body"),
        (b'{"features": ["a:b"], "entities": {"o": ["J"]}, "as_of": "2013"}', 422, "bad_body"),
        (b'{"features": ["a:b"], "entities": {"o": ["J"]}, "as_of": 1370088000}', 422, "bad_body"),
        (b'{"features": ["a:b"], "entities": {"o": ["J"]}, "as_of": "0001-01-01T00:00:00+05:00"}', 422, "bad_body"),
        (b" " * 2 * 1024 * 1024, 413, "body_too_large"),
    ],
    ids=lambda value: value[:70] if isinstance(value, bytes) else None,
)
async def test_a_bad_body_is_refused_by_the_table(
    parrot: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    answer = await parrot.post(ASK, content=body, headers={"content-type": "application/json"})

    assert (answer.status_code, answer.json()["error"]) == (status, code)


async def test_a_bad_field_is_named_with_what_to_write(parrot: httpx.AsyncClient) -> None:
    said = (await parrot.post(ASK, json={"feature_service": "delay_v1", "entities": {"origin": "JFK"}})).json()

    assert said["faults"] == [{"pointer": "/entities/origin", "message": "Input should be a valid list"}]
    assert (
        'send it like {"feature_service":"my_feature_service","entities":{"my_join_key":["a","b"]}' in said["message"]
    )


async def test_another_content_type_is_refused(parrot: httpx.AsyncClient) -> None:
    answer = await parrot.post(ASK, content=json.dumps({"feature_service": "s", "entities": ROUTE}))

    assert (answer.status_code, answer.json()["error"]) == (415, "media_type")


async def test_each_view_says_how_far_it_has_come() -> None:
    noon = from_rfc3339("2013-06-01T12:00:00Z")
    app = http_app(title="features")
    late = ViewTime(
        view="landings", stream="flights-landed", stream_time=noon, waits_since=noon + 1_500_000, filled=True
    )
    new = ViewTime(view="departures", stream="flights-departed", stream_time=None, waits_since=None, filled=False)
    add_routes(app, lambda: None, lambda: None, lambda: MemoryViewTimes(late, new))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://features") as http:
        assert (await http.get("/v1/views")).json() == {
            "views": [
                {
                    "view": "landings",
                    "stream": "flights-landed",
                    "stream_time": "2013-06-01T12:00:00Z",
                    "waits_since": "2013-06-01T12:00:01.500000Z",
                    "filled": True,
                },
                {
                    "view": "departures",
                    "stream": "flights-departed",
                    "stream_time": None,
                    "waits_since": None,
                    "filled": False,
                },
            ]
        }
    async with office(None) as client:
        assert (await client.get("/v1/views")).status_code == 503


async def test_before_the_definitions_are_read_the_answer_is_later() -> None:
    async with office(None) as client:
        answer = await client.post(ASK, json={"feature_service": "delay_v1", "entities": ROUTE})

    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "unavailable", "1")


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "null"), (["JFK"], "an array"), ({"iata": "JFK"}, "an object")],
    ids=["null", "array", "object"],
)
async def test_a_value_that_names_no_entity_is_named_with_its_place(feast: FeastReader, value: Any, said: str) -> None:
    answer = await ask(feast, entities={"origin": ["JFK", value]})

    assert (answer.status_code, answer.json()["error"]) == (422, "bad_entities")
    assert answer.json()["message"].startswith(f"/entities/origin/1 is {said};")


async def test_a_null_in_a_composite_entity_is_named_too(feast: FeastReader) -> None:
    route = ROUTE | {"tailnum": [None]}
    answer = await ask(feast, features=None, feature_service="delay_v1", entities=route, full_feature_names=True)

    assert (answer.status_code, answer.json()["error"]) == (422, "bad_entities")
    assert "/entities/tailnum/0 is null" in answer.json()["message"]


@pytest.mark.parametrize("value", ["JFK", 7, 1.5, True])
async def test_texts_and_numbers_name_entities(feast: FeastReader, value: Any) -> None:
    answer = await ask(feast, entities={"origin": [value]})

    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("more", "status", "code", "said"),
    [
        ({"features": ["arrivals:count"]}, 404, "unknown_feature", "arrivals"),
        ({"features": ["origin_departures:count"]}, 422, "bad_question", "Feature count not found"),
        ({"features": ["flights_1h"]}, 422, "bad_question", "Invalid feature reference 'flights_1h'"),
        ({"features": None, "feature_service": "delay_v9"}, 404, "unknown_feature", "delay_v9"),
        ({"features": None, "feature_service": "delay_v1"}, 422, "bad_question", "full_feature_names=True"),
        ({"features": ["origin_carrier_departures:mean_delay_3h"]}, 422, "bad_question", "carrier is missing"),
        (
            {"entities": {"colour": ["red"]}},
            422,
            "bad_question",
            "entities: origin is missing; what is asked for needs origin",
        ),
        (
            {"features": ["origin_carrier_departures:mean_delay_3h"], "entities": {"tailnum": ["N1"]}},
            422,
            "bad_question",
            "entities: origin, carrier are missing; what is asked for needs origin, carrier",
        ),
        ({"entities": {"origin": ["JFK"], "carrier": []}}, 422, "bad_entities", "must have one length; got [0, 1]"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else None,
)
async def test_what_cannot_be_read_is_said_in_feasts_words(
    feast: FeastReader, more: dict[str, Any], status: int, code: str, said: str
) -> None:
    answer = await ask(feast, **more)

    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert said in answer.json()["message"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["origin", "carrier", "dest", "tailnum"]) | st.text(max_size=5)
QUESTIONS = st.fixed_dictionaries(
    {"entities": VALUES | st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=2), max_size=3)},
    optional={
        "features": VALUES | st.lists(st.sampled_from(["origin_departures:flights_1h", "a:b", ":"]) | st.text()),
        "feature_service": VALUES | st.just("delay_v1"),
        "full_feature_names": VALUES,
        "as_of": VALUES | st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    },
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100) | QUESTIONS.map(lambda question: json.dumps(question).encode()))
async def test_no_body_breaks_the_door(feast: FeastReader, body: bytes) -> None:
    async with office(feast) as client:
        answer = await client.post(ASK, content=body, headers={"content-type": "application/json"})

    code = answer.json()["error"]
    assert answer.status_code == (503 if code == "unavailable" else STATUS[code]), answer.text


async def test_the_documentation_shows_a_question_that_fits(parrot: httpx.AsyncClient) -> None:
    said = (await parrot.get("/openapi.json")).json()

    door = said["paths"][ASK]["post"]
    content = door["requestBody"]["content"]["application/json"]
    assert set(content["schema"]["properties"]) >= {"features", "feature_service", "entities", "as_of"}
    assert (await parrot.post(ASK, json=content["example"])).status_code == 200
    assert set(door["responses"]) >= {"200", "400", "404", "413", "415", "422", "503", "default"}
