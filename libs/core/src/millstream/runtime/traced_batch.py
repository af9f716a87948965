"""Traces through a batch: its records come of many traces, and what comes of each record goes on in that record's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

from opentelemetry import propagate, trace
from opentelemetry.trace import Link, SpanKind

from millstream.runtime.records import Batch
from millstream.runtime.tracing import context_of, current_traceparent, span, tracing, valid_traceparent

MOST_TRACES = 128
"""Of one batch that get a span: as many as a span may link to (OpenTelemetry's default). Of more the records are handed on in
their traces all the same, only this hop is not seen there."""

Headers = Iterable[tuple[str, bytes]]

_hops: ContextVar[Mapping[str, str]] = ContextVar("hops")
"""In a batch: by a record's traceparent, the span that the batch has in that trace."""


def traceparent_of(headers: Headers) -> str | None:
    """What a record says of its trace; None where it says nothing that can be read."""
    return next((valid_traceparent(value) for name, value in headers if name == "traceparent"), None)


@contextmanager
def batch_span(group: str, batch: Batch) -> Iterator[None]:
    """The work on one batch. Free when tracing is off.

    A batch of one trace is a span of that trace. One of several is a trace of its own with a link to each, and each has a
    span as long as the batch, with a link back: so one trace goes from an event to what came of it, whoever shared its batch.
    """
    if not tracing():
        yield
        return
    name = f"{group} {batch.topic}"
    about: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": batch.topic,
        "messaging.destination.partition.id": str(batch.partition),
        "messaging.consumer.group.name": group,
    }
    traces, alone = _traces(batch)
    more = {**about, "messaging.batch.message_count": len(batch.records)}
    hops: dict[str, str] = {}
    with ExitStack() as spans:
        if alone:
            spans.enter_context(span(name, traces[0], kind=SpanKind.CONSUMER, about=more))
            hops[traces[0]] = current_traceparent() or traces[0]
        else:
            spans.enter_context(span(name, root=True, links=traces, kind=SpanKind.CONSUMER, about=more))
            whole = trace.get_current_span().get_span_context()
            for one in traces:
                came = propagate.extract({"traceparent": one})
                hop = trace.get_tracer("millstream").start_span(
                    name, context=came, kind=SpanKind.CONSUMER, links=[Link(whole)], attributes=about
                )
                spans.callback(hop.end)
                carrier: dict[str, str] = {}
                propagate.inject(carrier, trace.set_span_in_context(hop))
                hops[one] = carrier.get("traceparent", one)
        token = _hops.set(hops)
        try:
            yield
        finally:
            _hops.reset(token)


def handed_on(headers: Headers) -> str | None:
    """Traceparent of what comes of the record with these `headers`: its own trace goes on, also where tracing is off here."""
    said = traceparent_of(headers)
    if said is None:
        return current_traceparent()
    return _hops.get({}).get(said, said)


@contextmanager
def within(headers: Headers) -> Iterator[None]:
    """What is done for one record of a batch alone: spans, logs and events of it belong to the record's trace."""
    context = context_of(handed_on(headers)) if tracing() else None
    if context is None:
        yield
        return
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield


def _traces(batch: Batch) -> tuple[Sequence[str], bool]:
    """The sampled traces of a batch, at most MOST_TRACES, and whether every record is of one."""
    found: dict[str, None] = {}
    others = False
    for record in batch.records:
        said = traceparent_of(record.headers)
        context = context_of(said) if said not in found else None
        if said in found:
            continue
        if said is None or context is None or not context.trace_flags.sampled or len(found) == MOST_TRACES:
            others = True
        else:
            found[said] = None
    return [*found], len(found) == 1 and not others
