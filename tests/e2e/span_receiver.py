"""An OTLP receiver of the tests' own: what the processes say of their traces, as a collector would hear it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2


class Span:
    """One span, its ids in hexadecimal as headers and logs have them."""

    def __init__(self, service: str, raw: trace_pb2.Span) -> None:
        self.service = service
        self.name = raw.name
        self.trace = raw.trace_id.hex()
        self.id = raw.span_id.hex()
        self.parent = raw.parent_span_id.hex()
        self.kind = trace_pb2.Span.SpanKind.Name(raw.kind).removeprefix("SPAN_KIND_")
        self.links = {(link.trace_id.hex(), link.span_id.hex()) for link in raw.links}
        self.about = {one.key: one.value.string_value or one.value.int_value for one in raw.attributes}

    def __repr__(self) -> str:
        return f"{self.service} {self.name!r} {self.trace[:6]}/{self.id[:6]}"


class SpanReceiver:
    """Keeps every span that was sent to `endpoint`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def hear(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            found = [Span(names[0], raw) for scope in resource.scope_spans for raw in scope.spans]
            with self._lock:
                self._spans += found


@contextmanager
def span_receiver() -> Iterator[SpanReceiver]:
    """Listens on loopback until the end of the block."""
    receiver: SpanReceiver

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            assert self.path == "/v1/traces", self.path
            receiver.hear(body)
            said = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        receiver = SpanReceiver(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, name="span receiver")
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
