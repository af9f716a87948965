"""A producer in Newark and its client: batches, retries of the same bytes, and errors that say what to do."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import millstream
from millstream.client import (
    AsyncClient,
    CallFailed,
    Client,
    EventRejected,
    NotAuthorised,
    NotFound,
    OutcomeUnknown,
    Progress,
    TooLarge,
    Unavailable,
)

UA1545 = {"flight_id": "2013-01-01-UA-1545-EWR", "dep_delay": 2}
Handler = Callable[[httpx.Request], httpx.Response]


def no(status: int, error: str, **more: Any) -> httpx.Response:
    return httpx.Response(status, json={"error": error, "message": f"{error}, sadly"} | more)


BUSY = {"headers": {"retry-after": "0"}, "json": {"error": "busy", "message": "full", "outcome": "not_accepted"}}
UNKNOWN = {"headers": {"retry-after": "0"}, "json": {"error": "unknown", "message": "late", "outcome": "unknown"}}


@dataclass
class Mill:
    """Answers as ingest does, after what it is told to answer first; keeps every request."""

    first: list[httpx.Response | Exception] = field(default_factory=list)
    asked: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.first:
            answer = self.first.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if not request.url.path.endswith("/batch"):
            return httpx.Response(202, json={"id": "a", "status": "accepted"})
        results = []
        for index, line in enumerate(request.content.split(b"\n")):
            if json.loads(line).get("dep_delay") == "two":
                fault = {"code": "schema", "message": '"two" is no number', "pointer": "/dep_delay"}
                fault |= {"expected": "type: number", "got": '"two"'}
                results.append({"index": index, "status": "rejected", "error": fault})
            else:
                results.append({"index": index, "status": "accepted", "id": str(index)})
        rejected = sum(one["status"] == "rejected" for one in results)
        status = 202 if not rejected else 207 if rejected < len(results) else 422
        body = {"accepted": len(results) - rejected, "rejected": rejected, "results": results}
        return httpx.Response(status, json=body)

    def client(self, **options: Any) -> Client:
        return Client("http://mill", http=httpx.Client(transport=httpx.MockTransport(self)), **options)

    def asynchronous(self, **options: Any) -> AsyncClient:
        return AsyncClient("http://mill", http=httpx.AsyncClient(transport=httpx.MockTransport(self)), **options)

    @property
    def sizes(self) -> list[int]:
        """Events of each batch."""
        return [request.content.count(b"\n") + 1 for request in self.asked]


def test_the_name_is_there_and_costs_nothing_until_it_is_asked_for() -> None:
    assert millstream.Client is Client
    assert millstream.AsyncClient is AsyncClient
    looked = "import sys, millstream; print('httpx' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="no attribute 'Customer'"):
        _ = millstream.Customer


def test_one_event_goes_out_with_the_key_and_comes_back_with_its_id() -> None:
    mill = Mill()

    sent = mill.client(key="secret").send("flights-departed", UA1545)

    assert (sent.id, sent.replayed) == ("a", False)
    [request] = mill.asked
    assert request.url == "http://mill/v1/streams/flights-departed/events"
    assert request.headers["authorization"] == "Bearer secret"
    assert json.loads(request.content) == UA1545
    assert "ce-id" not in request.headers


def test_an_id_is_said_where_the_stream_has_none() -> None:
    mill = Mill()

    mill.client().send("sensor-readings", {"gauge": 7}, id="gauge 7/é")

    assert mill.asked[0].headers["ce-id"] == "gauge%207/%C3%A9"
    assert mill.asked[0].headers["ce-type"] == "stream.sensor-readings.v1"


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: httpx.Response(503, **BUSY),
        lambda: httpx.Response(503, **UNKNOWN),
        lambda: httpx.Response(429, headers={"retry-after": "0"}),
        lambda: httpx.Response(502),
        lambda: no(408, "body_timeout"),
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.ReadTimeout("late"),
        lambda: httpx.RemoteProtocolError("closed in the middle"),
    ],
    ids=["busy", "unknown", "quota", "proxy", "slow", "refused", "late", "closed"],
)
async def test_a_retry_is_the_same_request(trouble: Callable[[], httpx.Response | Exception]) -> None:
    mill, another = Mill([trouble()]), Mill([trouble()])

    mill.client().send("flights-departed", UA1545)
    await another.asynchronous().send("flights-departed", UA1545)

    for first, again in (mill.asked, another.asked):
        assert first.content == again.content
        assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert mill.asked[0].headers["idempotency-key"] != another.asked[0].headers["idempotency-key"]


def test_what_retry_after_says_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("millstream.client.synchronous.time.sleep", slept.append)
    mill = Mill([httpx.Response(429, headers={"retry-after": "3"}), httpx.ConnectError("refused")])

    mill.client().send("flights-departed", UA1545)

    assert 3.0 <= slept[0] <= 3.75
    assert 0.1 <= slept[1] <= 0.2, "the second wait of two, halved at most"


def test_patience_ends_and_says_whether_anything_was_taken() -> None:
    with pytest.raises(Unavailable, match="nothing was taken, after one try: full") as away:
        Mill([httpx.Response(503, **BUSY)]).client(patience=0).send("flights-departed", UA1545)
    with pytest.raises(OutcomeUnknown, match="nobody knows whether it got through"):
        Mill([httpx.ReadTimeout("late")]).client(patience=0).send("flights-departed", UA1545)
    # A proxy's 503 may follow on a request that it had passed on.
    for foreign in ({"text": "upstream connect error"}, {"json": {"error": "no healthy upstream"}}, {"json": ["no"]}):
        with pytest.raises(OutcomeUnknown):
            Mill([httpx.Response(503, **foreign)]).client(patience=0).send("flights-departed", UA1545)  # type: ignore[arg-type]
    # One unknown outcome is not forgotten because the next try was plainly refused.
    many = [httpx.Response(503, **UNKNOWN), *[httpx.Response(503, **BUSY) for _ in range(50)]]
    with pytest.raises(OutcomeUnknown):
        Mill(many).client(patience=0.3).send("flights-departed", UA1545)

    assert (away.value.code, away.value.status) == ("busy", 503)
    assert not isinstance(away.value, OutcomeUnknown)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (no(401, "no_key"), NotAuthorised),
        (no(403, "no_scope"), NotAuthorised),
        (no(404, "unknown_stream", known=["flights-landed"]), NotFound),
        (no(413, "too_large", pointer=""), TooLarge),
        (no(422, "schema", pointer="/dep_delay", expected="type: number", got='"two"'), EventRejected),
        (no(500, "internal"), OutcomeUnknown),
        (httpx.Response(200, text="<html>a captive portal</html>"), CallFailed),
        (httpx.Response(202, json=["not", "ours"]), CallFailed),
    ],
)
def test_every_refusal_is_an_error_of_its_kind_at_once(answer: httpx.Response, kind: type[CallFailed]) -> None:
    mill = Mill([answer])

    with pytest.raises(CallFailed) as refused:
        mill.client().send("flights-departed", UA1545)

    assert type(refused.value) is kind
    assert refused.value.status == answer.status_code
    assert len(mill.asked) == 1, "what cannot succeed is not tried again"


def test_a_rejection_points_at_the_value_and_holds_the_event() -> None:
    answer = no(422, "schema", pointer="/dep_delay", expected="type: number", got='"two"')

    with pytest.raises(EventRejected) as refused:
        Mill([answer]).client().send("flights-departed", UA1545)

    assert str(refused.value) == '/dep_delay: schema, sadly (expected type: number, got "two")'
    assert refused.value.event is UA1545


def test_many_events_leave_in_order_in_batches_by_count_and_by_bytes() -> None:
    by_count, by_bytes = Mill(), Mill()
    told: list[int] = []

    done = by_count.client().send_many(
        "flights-departed", ({"n": n} for n in range(7)), batch_events=3, on_progress=lambda p: told.append(p.done)
    )
    by_bytes.client().send_many("flights-departed", [{"n": "x" * 50}] * 4 + [{"n": "x" * 500}], batch_bytes=130)

    assert (by_count.sizes, told, done) == ([3, 3, 1], [3, 6, 7], Progress(accepted=7))
    assert [json.loads(line)["n"] for r in by_count.asked for line in r.content.split(b"\n")] == list(range(7))
    assert by_bytes.sizes == [2, 2, 1]


def test_nothing_to_send_is_no_request() -> None:
    mill = Mill()

    assert mill.client().send_many("flights-departed", []) == Progress()
    assert mill.asked == []


def test_without_anybody_to_ask_the_first_rejection_stops_the_run() -> None:
    mill = Mill()
    events = [{"n": n} | ({"dep_delay": "two"} if n in (4, 5) else {}) for n in range(9)]

    with pytest.raises(EventRejected) as refused:
        mill.client().send_many("flights-departed", events, batch_events=3)

    assert (refused.value.index, refused.value.pointer, refused.value.event) == (4, "/dep_delay", events[4])
    assert mill.sizes == [3, 3]


def test_with_somebody_to_ask_the_others_go_on() -> None:
    mill, bad = Mill(), list[EventRejected]()
    events = [{"n": n} | ({"dep_delay": "two"} if n in (1, 2, 8) else {}) for n in range(9)] + [{"n": {1, object()}}]

    done = mill.client().send_many("flights-departed", events, batch_events=3, on_rejected=bad.append)

    assert done == Progress(accepted=6, rejected=4)
    assert [(error.index, error.code) for error in bad] == [
        (1, "schema"),
        (2, "schema"),
        (8, "schema"),
        (9, "not_json"),
    ]


def test_a_batch_that_is_refused_whole_is_an_error() -> None:
    with pytest.raises(NotFound) as refused:
        Mill([no(404, "unknown_stream", known=["a", "b"])]).client().send_many("flights", [UA1545])
    assert refused.value.known == ("a", "b")
    with pytest.raises(CallFailed, match="HTTP status 202"):
        Mill([httpx.Response(202, json={"results": []})]).client().send_many("flights", [UA1545])


def test_a_long_run_takes_the_memory_of_one_batch() -> None:
    def departures() -> Iterator[dict[str, Any]]:
        for n in range(40_000):
            yield {"flight_id": f"{n}", "remark": "x" * 500}

    def swallow(request: httpx.Request) -> httpx.Response:
        count = request.content.count(b"\n") + 1
        return httpx.Response(202, json={"results": [{"status": "accepted"}] * count})

    client = Client("http://mill", http=httpx.Client(transport=httpx.MockTransport(swallow)))
    client.send_many("flights-departed", [UA1545])
    # A command that another test ran in this process may have told the collector to come seldom.
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    tracemalloc.start()
    try:
        client.send_many("flights-departed", departures())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.set_threshold(*before)
    assert peak < 4_000_000, "20 MB went through"


async def test_an_asynchronous_iterator_is_not_waited_for_longer_than_linger() -> None:
    mill, more = Mill(), asyncio.Event()

    async def departures() -> AsyncIterator[dict[str, Any]]:
        yield {"n": 0}
        yield {"n": 1}
        await more.wait()
        yield {"n": 2}

    run = asyncio.create_task(mill.asynchronous().send_many("flights-departed", departures(), linger=0.05))
    async with asyncio.timeout(10):
        while not mill.asked:  # noqa: ASYNC110 - another task's state
            await asyncio.sleep(0.01)
        assert not run.done()
        more.set()
        assert await run == Progress(accepted=3)

    assert mill.sizes == [2, 1]


async def test_an_iterator_that_fails_or_is_cancelled_is_left_alone() -> None:
    closed = False

    async def departures() -> AsyncIterator[dict[str, Any]]:
        nonlocal closed
        try:
            yield {"n": 0}
            await asyncio.Event().wait()
        finally:
            closed = True

    async def broken() -> AsyncIterator[dict[str, Any]]:
        yield {"n": 0}
        raise RuntimeError("the gate closed")

    run = asyncio.create_task(Mill().asynchronous().send_many("flights-departed", departures(), linger=0.01))
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    with pytest.raises(RuntimeError, match="the gate closed"):
        await Mill().asynchronous().send_many("flights-departed", broken())
    assert closed


async def test_a_question_goes_to_serving() -> None:
    answer = {"prediction_id": "3b70", "probability": 0.3}
    fault = no(422, "bad_question", faults=[{"pointer": "/event/dep_delay", "message": "no number"}])
    mill, another = Mill([httpx.Response(200, json=answer), fault]), Mill([httpx.Response(200, json=answer)])
    options = {"serving": "http://serving", "key": "secret"}

    assert mill.client(**options).predict("flight-delay", UA1545) == answer
    assert await another.asynchronous(**options).predict("flight-delay", UA1545) == answer
    with pytest.raises(EventRejected) as refused:
        mill.client(**options).predict("flight-delay", UA1545)

    assert mill.asked[0].url == "http://serving/v1/loops/flight-delay/predict"
    assert json.loads(mill.asked[0].content) == {"event": UA1545}
    assert (refused.value.pointer, refused.value.code) == ("/dep_delay", "bad_question")


def test_address_and_key_are_looked_at_before_they_are_needed() -> None:
    with pytest.raises(ValueError, match="write it like http://localhost:8101"):
        Client("localhost:8101")
    for key in ("", "sécret", "secret\n", " secret"):
        with pytest.raises(ValueError, match="as the mill showed it"):
            Client("http://mill", key=key)


async def test_a_client_closes_its_own_connections_and_nobody_elses() -> None:
    theirs = httpx.Client(transport=httpx.MockTransport(Mill()))
    with Client("http://mill", http=theirs), Client("http://mill") as own:
        pass
    async with AsyncClient("http://mill") as other:
        pass

    assert not theirs.is_closed
    assert own._http.is_closed
    assert other._http.is_closed


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), max_size=40),
    most_events=st.integers(1, 8),
    most_bytes=st.integers(1, 150),
    bad=st.sets(st.integers(0, 40)),
)
def test_whatever_comes_each_event_leaves_once_in_order_within_the_bounds(
    sizes: list[int], most_events: int, most_bytes: int, bad: set[int]
) -> None:
    mill, rejected = Mill(), list[EventRejected]()
    events = [{"n": n, "x": "x" * size} | ({"dep_delay": "two"} if n in bad else {}) for n, size in enumerate(sizes)]

    done = mill.client().send_many(
        "flights-departed", iter(events), batch_events=most_events, batch_bytes=most_bytes, on_rejected=rejected.append
    )

    left = [json.loads(line) for request in mill.asked for line in request.content.split(b"\n")]
    assert left == events
    assert [error.index for error in rejected] == sorted(n for n in bad if n < len(events))
    assert done.done == len(events)
    for request, size in zip(mill.asked, mill.sizes, strict=True):
        assert size <= most_events
        assert size == 1 or len(request.content) <= most_bytes + 1
