"""One JSON object a line, with the trace it belongs to. No payloads at INFO."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from opentelemetry import trace

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str, worker: int | None = None) -> None:
        super().__init__()
        self._whose: dict[str, object] = {"service": service}
        if worker is not None:
            self._whose["worker"] = worker

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **self._whose,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = format(context.trace_id, "032x")
            line["span_id"] = format(context.span_id, "016x")
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logs(service: str, level: str, worker: int | None = None) -> None:
    """Send every logger's lines to standard error as JSON. Kafka clients speak from WARNING on: they are chatty.

    `worker`: which of several; None in a process that is alone, or that leads them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service, worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("aiokafka", "httpx", "httpcore", "uvicorn.access", "asyncio", "deltalake"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    # It warns at every start that topics are not created by the way, which is how we want it.
    logging.getLogger("faststream").setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error", "faststream"):  # these write plain text of their own
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
