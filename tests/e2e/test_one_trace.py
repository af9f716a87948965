"""One trace from an event to its prediction, and links from a verdict to the model that answers because of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import PredictionServed, decode_event
from millstream.contracts.times import HOUR, from_rfc3339, to_rfc3339
from millstream_cli.predictions import every_record
from millstream_cli.recording import load_recording
from millstream_cli.ticks import Ticks

from .small_mill import LATE_GIVEN_UP, running_mill, small_project
from .span_receiver import Span, SpanReceiver, span_receiver

UNTIL = "2013-01-05T12:00:00Z"
"""Four days: the first model is trained on the third."""

CALLERS = {f"{n:032x}": f"00-{n:032x}-{n:016x}-01" for n in range(0xAAA, 0xAAA + 8)}
"""Eight callers, each in a trace of its own: by trace id, their traceparent."""

HOPS = {"serving flights-scheduled", "drift millstream-predictions", "features-lake flights-scheduled"}
"""Of each of these traces, beside the request."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


class Seen:
    """What the run left behind."""

    def __init__(self, spans: SpanReceiver, folder: Path) -> None:
        self.spans = spans
        self.folder = folder
        self.asked_by: dict[str, str] = {}
        """Question → trace of its caller."""
        self.answered_in: dict[str, str] = {}
        """Question → trace of the answer's record."""
        self.over_http = ""
        """Trace of the answer's record to a question over HTTP."""

    def logged(self, service: str) -> list[dict[str, object]]:
        lines = (self.folder / "logs" / f"{service}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("traced")
    with span_receiver() as receiver:
        found = Seen(receiver, folder / "mill")
        asyncio.run(_run(folder, found))
        yield found


async def _run(folder: Path, seen: Seen) -> None:
    """Four days of flights, then eight flights at once by eight callers, and one more over HTTP."""
    project = small_project(folder / "project", partitions=1)
    recording = load_recording(project)
    until = from_rfc3339(UNTIL)
    ticks = Ticks(recording.events, questions={"flights-scheduled"}, tick=HOUR, until=until)
    environment = {**LATE_GIVEN_UP, "MILLSTREAM_OTLP_ENDPOINT": seen.spans.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    async with running_mill(project, seen.folder, environment) as running:
        state = running.state
        await running.replay(ticks)
        after = Ticks(recording.events, questions={"flights-scheduled"}, tick=HOUR, until=until + 12 * HOUR)
        lines = [line for tick in after if tick.start >= until for line in tick.questions.get("flights-scheduled", [])]
        known = {"ce-knownat": to_rfc3339(until), "content-type": "application/json"}
        async with httpx.AsyncClient(timeout=30) as http:
            where = f"{state.services['ingest']}/v1/streams/flights-scheduled/events"
            asked = [
                http.post(where, content=line, headers={**known, "traceparent": traceparent})
                for line, traceparent in zip(lines, CALLERS.values(), strict=False)
            ]
            for line, trace, answer in zip(lines, CALLERS, await asyncio.gather(*asked), strict=False):
                assert answer.status_code == 202, answer.text
                seen.asked_by[json.loads(line)["flight_id"]] = trace
            one = json.loads(lines[len(CALLERS)])
            answer = await http.post(
                f"{state.services['serving']}/v1/loops/flight-delay/predict",
                json={"event": one},
                headers={"ce-knownat": to_rfc3339(until), "traceparent": f"00-{'b' * 32}-{'c' * 16}-01"},
            )
            assert answer.status_code == 200, answer.text
        async with asyncio.timeout(60):
            while len(seen.answered_in) < len(CALLERS) or not seen.over_http:
                await _read_answers(state.kafka, seen, one["flight_id"])
        # Who hears the answers does so later, and who is stopped hears no more. What never comes the tests name.
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while any(HOPS - {span.name for span in seen.spans.of(trace)} for trace in CALLERS):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


async def _read_answers(kafka: str, seen: Seen, over_http: str) -> None:
    async for records in every_record(kafka):
        for record in records:
            envelope = envelope_of(record.headers)
            event = decode_event(envelope.type, record.value or b"")
            if not isinstance(event, PredictionServed):
                continue
            trace = (envelope.traceparent or "").split("-")[1:2]
            if event.question in seen.asked_by:
                seen.answered_in[event.question] = "".join(trace)
            if event.question == over_http:
                seen.over_http = "".join(trace)


def one(spans: list[Span], name: str, service: str = "") -> Span:
    found = [span for span in spans if span.name == name and service in span.service]
    assert len(found) == 1, f"{len(found)} spans {name!r} among {sorted({s.name for s in spans})}"
    return found[0]


def test_an_answer_goes_on_in_the_trace_of_who_asked_whoever_shared_its_batch(seen: Seen) -> None:
    assert len(seen.asked_by) == len(CALLERS)
    assert seen.answered_in == seen.asked_by


@pytest.mark.parametrize("trace", CALLERS)
def test_one_trace_has_every_hop_from_the_request_to_the_judge_of_its_answer(seen: Seen, trace: str) -> None:
    spans = seen.spans.of(trace)
    accepted = one(spans, "POST /v1/streams/flights-scheduled/events", "ingest")
    answered = one(spans, "serving flights-scheduled", "serving")
    judged = one(spans, "drift millstream-predictions", "drift")
    kept = one(spans, "features-lake flights-scheduled", "features")

    assert accepted.parent == CALLERS[trace].split("-")[2]
    assert (accepted.kind, accepted.about["http.response.status_code"]) == ("SERVER", 202)
    assert answered.parent == accepted.id
    assert (answered.kind, answered.about["messaging.destination.name"]) == ("CONSUMER", "flights-scheduled")
    assert judged.parent == answered.id
    assert kept.parent == accepted.id


def test_a_batch_of_several_traces_is_linked_with_each_of_them_and_they_with_it(seen: Seen) -> None:
    batches = {span.id: span for span in seen.spans.spans if span.kind == "CONSUMER" and not span.parent}
    mixed = 0
    for trace in CALLERS:
        hop = one(seen.spans.of(trace), "serving flights-scheduled")
        for of_batch, batch in hop.links:
            assert batches[batch].trace == of_batch
            assert (trace, hop.parent) in batches[batch].links
            mixed += 1
    print(f"{mixed} of {len(CALLERS)} questions shared a batch")


def test_a_question_over_http_is_answered_in_the_callers_trace(seen: Seen) -> None:
    asked = one(seen.spans.of("b" * 32), "POST /v1/loops/flight-delay/predict", "serving")
    assert asked.parent == "c" * 16
    assert seen.over_http == asked.trace


def test_links_lead_from_the_model_that_answers_back_to_the_verdict(seen: Seen) -> None:
    """judge → decide → run → train → register, promote → obey: four traces, each linked with what led to it."""
    by_id = {(span.trace, span.id): span for span in seen.spans.spans}
    spans = seen.spans.spans
    obeyed = next(span for span in spans if span.name == "obey flight-delay" and span.about["millstream.revision"] == 1)
    said = by_id[obeyed.trace, obeyed.parent]
    run = by_id[said.trace, said.parent]
    decided = by_id[next(iter(run.links))]
    heard = by_id[decided.trace, decided.parent]
    judged = by_id[heard.trace, heard.parent]

    assert (said.name, run.name) == ("say millstream.model.state.v1", "run flight-delay")
    assert decided.name == "say millstream.retrain.decided.v1"
    assert heard.name == "trainer millstream-verdicts"
    assert (judged.name, judged.service) == ("judge flight-delay", "millstream-drift")
    assert len({obeyed.trace, judged.trace}) == 2, "what takes days is linked, not one trace"
    trained = one(seen.spans.of(run.trace), "train flight-delay", "trainer")
    phases = {span.name for span in seen.spans.of(run.trace) if span.parent == trained.id}
    assert phases >= {"dataset", "fit", "export", "score", "package"}
    assert one(seen.spans.of(run.trace), "register", "trainer").parent == run.id
    moved = [span for span in seen.spans.of(run.trace) if span.name == "say millstream.rollout.moved.v1"]
    assert moved


def test_log_lines_of_the_work_have_the_ids_of_its_trace(seen: Seen) -> None:
    known = {(span.trace, span.id) for span in seen.spans.spans}
    for service, words in {"trainer": "accepted: ", "serving": "obeying"}.items():
        lines = [line for line in seen.logged(service) if str(line["message"]).startswith(words)]
        assert lines, service
        for line in lines:
            assert (line["trace_id"], line["span_id"]) in known, (service, line)
