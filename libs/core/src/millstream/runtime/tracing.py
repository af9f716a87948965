"""Traces that follow an event over HTTP and Kafka (W3C traceparent). Off until an OTLP endpoint is set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind

_on = False
_VALID = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def configure_tracing(service: str, instance: str, endpoint: str | None, exporter: SpanExporter | None = None) -> bool:
    """Send spans to `endpoint` (or to a given exporter). Returns whether tracing is on.

    How many traces are kept is OpenTelemetry's own `OTEL_TRACES_SAMPLER`.
    """
    global _on
    if exporter is None:
        if not endpoint:
            return False
        # Imported only when asked for: it brings protobuf and requests along.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    resource = Resource.create({"service.name": f"millstream-{service}", "service.instance.id": instance})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    _on = True
    return True


def tracing() -> bool:
    """Whether spans are recorded in this process."""
    return _on


def flush_tracing(seconds: float = 2.0) -> None:
    """Send what has ended, for a process that ends without taking leave. Waits so long at most."""
    provider = trace.get_tracer_provider()
    if _on and isinstance(provider, TracerProvider):
        provider.force_flush(int(seconds * 1000))


def current_traceparent() -> str | None:
    """The header that carries the current span on, or None when tracing is off."""
    if not _on:
        return None
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def valid_traceparent(raw: bytes | None) -> str | None:
    """A header as a stranger sent it; None for what is none: it goes into our own records."""
    return raw.decode() if raw is not None and _VALID.fullmatch(raw) else None


def context_of(traceparent: str | None) -> SpanContext | None:
    """The span that the header names; None where it names none."""
    if traceparent is None:
        return None
    found = trace.get_current_span(propagate.extract({"traceparent": traceparent})).get_span_context()
    return found if found.is_valid else None


@contextmanager
def span(
    name: str,
    traceparent: str | None = None,
    *,
    links: Iterable[str | None] = (),
    kind: SpanKind = SpanKind.INTERNAL,
    root: bool = False,
    about: Mapping[str, str | int] | None = None,
) -> Iterator[None]:
    """A span around a piece of work, continuing `traceparent`, or else the current span. Free when tracing is off.

    `root`: it begins a trace of its own. `links`: what led to it without having waited for it; those of its own trace say
    nothing new and are left out.
    """
    if not _on:
        yield
        return
    context = Context() if root else propagate.extract({"traceparent": traceparent}) if traceparent else None
    here = trace.get_current_span(context).get_span_context().trace_id
    linked = [Link(one) for one in map(context_of, links) if one is not None and one.trace_id != here]
    tracer = trace.get_tracer("millstream")
    with tracer.start_as_current_span(name, context=context, kind=kind, links=linked, attributes=about):
        yield
