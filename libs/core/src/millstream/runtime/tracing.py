"""Traces that follow an event over HTTP and Kafka (W3C traceparent). Off until an OTLP endpoint is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

_on = False


def configure_tracing(service: str, instance: str, endpoint: str | None, exporter: SpanExporter | None = None) -> bool:
    """Send spans to `endpoint` (or to a given exporter). Returns whether tracing is on."""
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


def current_traceparent() -> str | None:
    """The header that carries the current span on, or None when tracing is off."""
    if not _on:
        return None
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def _parent(traceparent: str | None) -> Context | None:
    return propagate.extract({"traceparent": traceparent}) if traceparent else None


@contextmanager
def span(name: str, traceparent: str | None = None, **attributes: str | int) -> Iterator[None]:
    """A span around a piece of work, continuing `traceparent` when there is one. Free when tracing is off."""
    if not _on:
        yield
        return
    tracer = trace.get_tracer("millstream")
    with tracer.start_as_current_span(name, context=_parent(traceparent), attributes=attributes):
        yield
