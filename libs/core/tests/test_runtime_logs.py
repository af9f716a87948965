"""One JSON object a line, whatever is logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from millstream.runtime.logs import JsonFormatter, configure_logs


@pytest.fixture
def loggers() -> Iterator[None]:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def line(message: str, *args: object, level: int = logging.INFO, **extra: object) -> dict[str, object]:
    record = logging.getLogger("millstream.test").makeRecord(
        "millstream.test", level, __file__, 1, message, args, None, extra=extra
    )
    written = JsonFormatter("ingest").format(record)
    assert "\n" not in written
    found: dict[str, object] = json.loads(written)
    return found


def test_a_line_carries_its_service_and_what_else_was_given() -> None:
    found = line("dead letter: %s", "bad_json", topic="flights", offset=17, level=logging.WARNING)

    assert found["message"] == "dead letter: bad_json"
    assert (found["level"], found["service"], found["logger"]) == ("WARNING", "ingest", "millstream.test")
    assert (found["topic"], found["offset"]) == ("flights", 17)
    assert "trace_id" not in found
    assert "taskName" not in found


def test_values_that_json_does_not_know_are_written_as_text() -> None:
    assert line("moved", partitions={1})["partitions"] == "{1}"
    assert line("first line\nsecond line")["message"] == "first line\nsecond line"


def test_an_error_comes_with_its_traceback() -> None:
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError as error:
        record = logging.makeLogRecord({"msg": "stopping", "exc_info": (type(error), error, error.__traceback__)})

    assert "ZeroDivisionError: a bug" in json.loads(JsonFormatter("ingest").format(record))["error"]


def test_a_line_inside_a_span_belongs_to_its_trace() -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("accept") as span:
        assert line("accepted")["trace_id"] == format(span.get_span_context().trace_id, "032x")


@pytest.mark.usefixtures("loggers")
def test_the_kafka_client_speaks_from_warning_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("ingest", "INFO")

    logging.getLogger("aiokafka.tests").info("joined group")
    logging.getLogger("aiokafka.tests").warning("coordinator dead")
    logging.getLogger("millstream.tests").info("started")

    # Whatever else this process does is heard by the same handler: a client of an earlier test that is collected only now says
    # so to `asyncio`, and a thread that exports spans says that nobody takes them.
    lines = [json.loads(said) for said in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines if line["logger"].endswith(".tests")] == ["coordinator dead", "started"]
