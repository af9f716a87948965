"""A trace follows an event from HTTP over Kafka into the handler; switched off it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import Cause, RetrainRequested
from millstream.runtime import tracing
from millstream.runtime.delivery import Batch
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
    with span("accept", CALLER, records=3):
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
