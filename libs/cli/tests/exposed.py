"""Metrics of a service, served as it serves them: what the command line reads of a running one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server


@contextmanager
def exposed(registry: CollectorRegistry) -> Iterator[str]:
    """The address at which `registry` is served."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
