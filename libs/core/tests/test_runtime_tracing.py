"""A trace follows an event from HTTP over Kafka into the handler; switched off it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from httpx import ASGITransport, AsyncClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import Cause, RetrainRequested
from millstream.errors import RetryLater
from millstream.runtime import tracing
from millstream.runtime.causes import Causes
from millstream.runtime.delivery import Batch
from millstream.runtime.http import http_app
from millstream.runtime.publisher import Outgoing
from millstream.runtime.traced_batch import MOST_TRACES, batch_span, handed_on, within
from millstream.runtime.tracing import configure_tracing, current_traceparent, span
from millstream.testing.kafka import EmbeddedKafka

from .runtime_kit import new_topic, running, service, until

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def provided() -> InMemorySpanExporter:
    """A process has one tracer provider, for good: this module's tests share it."""
    exporter = InMemorySpanExporter()
    assert configure_tracing("tower", "1", None, exporter)
    return exporter


@pytest.fixture
def spans(provided: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Tracing is on for one test."""
    monkeypatch.setattr(tracing, "_on", True)
    provided.clear()
    yield provided
    monkeypatch.undo()
    tracing._on = False


def flush() -> None:
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.force_flush()


def test_without_an_endpoint_tracing_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_on", False)

    assert configure_tracing("tower", "1", None) is False
    with span("accept", CALLER):
        assert current_traceparent() is None


def test_a_span_continues_the_callers_trace(spans: InMemorySpanExporter) -> None:
    with span("accept", CALLER, about={"records": 3}):
        inside = current_traceparent()
    flush()

    [finished] = spans.get_finished_spans()
    assert inside is not None
    assert inside.split("-")[1] == CALLER.split("-")[1]
    assert finished.parent is not None
    assert format(finished.parent.span_id, "016x") == CALLER.split("-")[2]
    assert finished.attributes == {"records": 3}
    assert finished.resource.attributes["service.name"] == "millstream-tower"


@pytest.mark.connected
async def test_one_trace_goes_from_the_request_over_kafka_into_the_handler(
    kafka: EmbeddedKafka, spans: InMemorySpanExporter
) -> None:
    heard: list[str | None] = []

    async def listen(batch: Batch) -> None:
        heard.extend(envelope_of(record.headers).traceparent for record in batch.records)
        heard.append(current_traceparent())

    made, topic = service(kafka.bootstrap), await new_topic(kafka.bootstrap, "tower")
    made.hears([topic], group="tower", handler=listen)
    event = RetrainRequested(id="r1", loop="flight-delay", cause=Cause.MANUAL, by="Ada", reason="new gates")
    async with running(made):
        await until(lambda: made.publisher.started)
        with span("POST /v1/retrain", CALLER):
            sent = made.publisher.outgoing(topic, event, id="r1", key="flight-delay")
        await made.publisher.publish([sent])
        await until(lambda: len(heard) == 2)
    flush()

    assert {said.split("-")[1] for said in heard if said} == {CALLER.split("-")[1]}
    names = [finished.name for finished in spans.get_finished_spans()]
    assert names == ["POST /v1/retrain", f"tower {topic}"]


@pytest.mark.connected
async def test_in_a_batch_of_several_traces_what_comes_of_a_record_goes_on_in_its_own(
    kafka: EmbeddedKafka, spans: InMemorySpanExporter
) -> None:
    callers = [f"00-{n:032x}-{n:016x}-01" for n in (7, 8, 9)]
    unsampled = f"00-{10:032x}-{10:016x}-00"
    went_on: list[list[str | None]] = []

    async def listen(batch: Batch) -> None:
        with within(batch.records[1].headers):
            inside = current_traceparent()
        went_on.append([*(handed_on(record.headers) for record in batch.records), inside])

    made, topic = service(kafka.bootstrap), await new_topic(kafka.bootstrap, "tower")
    sent = [
        Outgoing(topic, b"k", b"{}", [("traceparent", said.encode())])
        for said in [*callers, callers[0], unsampled, "x"]
    ]
    publishing = service(kafka.bootstrap)
    async with running(publishing):
        await until(lambda: publishing.publisher.started)
        await publishing.publisher.publish(sent)
    made.hears([topic], group="tower", handler=listen)
    async with running(made):
        await until(lambda: bool(went_on))
    flush()

    found = [one for one in spans.get_finished_spans() if one.name == f"tower {topic}"]
    whole = next(one for one in found if one.parent is None)
    hops = {one.context.trace_id: one for one in found if one.parent is not None}
    assert {link.context.trace_id for link in whole.links} == set(hops) == {7, 8, 9}
    for n, hop in hops.items():
        assert hop.parent is not None
        assert hop.parent.span_id == n
        assert [link.context.span_id for link in hop.links] == [whole.context.span_id]
    assert len(went_on) == 1, "one batch"
    *records, unreadable, inside = went_on[0]
    assert records[:4] == [f"00-{n:032x}-{hops[n].context.span_id:016x}-01" for n in (7, 8, 9, 7)]
    assert records[4] == unsampled
    assert unreadable is not None
    assert unreadable.startswith(f"00-{whole.context.trace_id:032x}-{whole.context.span_id:016x}-")
    assert inside == records[1]


def test_a_batch_of_more_traces_than_a_span_may_link_hands_each_on(spans: InMemorySpanExporter) -> None:
    headers = [[("traceparent", f"00-{n:032x}-{n:016x}-01".encode())] for n in range(1, MOST_TRACES + 3)]
    records = [SimpleNamespace(headers=one) for one in headers]

    with batch_span("tower", Batch("flights", 0, 0, len(records) - 1, records)):  # type: ignore[arg-type]
        went_on = [handed_on(one) for one in headers]
    flush()

    assert [said.split("-")[1] for said in went_on if said] == [f"{n:032x}" for n in range(1, MOST_TRACES + 3)]
    assert len(spans.get_finished_spans()) == MOST_TRACES + 1


def test_with_tracing_off_a_records_trace_is_handed_on_untouched_and_what_is_none_is_not() -> None:
    assert handed_on([("traceparent", CALLER.encode())]) == CALLER
    assert handed_on([("traceparent", b"\xff")]) is None
    assert handed_on([]) is None


async def test_a_request_is_a_span_of_its_callers_trace_named_by_its_route(spans: InMemorySpanExporter) -> None:
    app = http_app(title="tower")

    @app.post("/v1/planes/{plane}/clear")
    async def clear(plane: str) -> dict[str, str]:
        if plane == "late":
            raise RetryLater("no runway")
        return {"cleared": plane}

    async with AsyncClient(transport=ASGITransport(app), base_url="http://tower") as http:
        await http.post("/v1/planes/N14228/clear", headers={"traceparent": CALLER})
        await http.post("/v1/planes/late/clear", headers={"traceparent": "00-nonsense"})
        await http.post("/etc/passwd")
        await http.get("/openapi.json")
    flush()

    cleared, late, nowhere = spans.get_finished_spans()
    assert cleared.parent is not None
    assert format(cleared.parent.trace_id, "032x") == CALLER.split("-")[1]
    assert (cleared.name, late.name, nowhere.name) == (*["POST /v1/planes/{plane}/clear"] * 2, "POST")
    assert late.parent is None
    assert [one.attributes["http.response.status_code"] for one in (cleared, late, nowhere) if one.attributes] == [
        200,
        503,
        404,
    ]
    assert [one.status.is_ok for one in (cleared, late, nowhere)] == [True, False, True]


def test_causes_are_bounded_and_forget_the_oldest() -> None:
    causes = Causes(most=2)
    for id in ("a", "b", "c"):
        causes.learn(id, CALLER)
    causes.learn("d", None)

    assert [causes.of(id) for id in "abcd"] == [None, CALLER, CALLER, None]
    with span("say", links=[causes.of("a"), causes.of("b")]):
        pass


def test_a_link_within_one_trace_says_nothing_and_is_left_out(spans: InMemorySpanExporter) -> None:
    elsewhere = f"00-{7:032x}-{7:016x}-01"
    with span("decide", CALLER, links=[CALLER, elsewhere, None, "broken"]):
        pass
    with span("run", CALLER, root=True, links=[CALLER]):
        pass
    flush()

    decided, run = spans.get_finished_spans()
    assert [link.context.trace_id for link in decided.links] == [7]
    assert run.parent is None
    assert [format(link.context.trace_id, "032x") for link in run.links] == [CALLER.split("-")[1]]
