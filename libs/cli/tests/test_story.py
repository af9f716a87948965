"""The story of a loop, told by its own events."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from millstream.contracts.envelope import Envelope, Headers
from millstream.contracts.events import (
    Cause,
    Decision,
    Event,
    Finding,
    Outcome,
    RetrainDecided,
    Step,
    TrainingFinished,
    WindowJudged,
    WindowKind,
    WindowSkipped,
)
from millstream.contracts.times import to_datetime
from millstream_cli.journal import Told
from millstream_cli.story import Story
from millstream_cli.view import line_of

from .made_events import Journal, day, promoted

AT = to_datetime(1_370_000_000_000_000)


@dataclass
class FakeRecord:
    value: bytes
    headers: Headers


def record(event: Event, id: str, caused_by: str | None = None) -> FakeRecord:
    envelope = Envelope(id=id, type=event.type_name, source="test", causation_id=caused_by)
    return FakeRecord(event.encode(), envelope.headers())


def judged(id: str, finding: Finding) -> WindowJudged:
    return WindowJudged(
        id=id,
        loop="flight-delay",
        version="1",
        kind=WindowKind.INPUTS,
        index=0,
        finding=finding,
        reason="effect 0.31",
        at=AT,
        start=AT,
        end=AT,
        rows=500,
        effect=0.31,
    )


def decided(id: str, request: str, decision: Decision, run: str | None = None) -> RetrainDecided:
    return RetrainDecided(
        id=id, loop="flight-delay", request=request, cause=Cause.DRIFT, decision=decision, reason="why", at=AT, run=run
    )


def finished(id: str, run: str, outcome: Outcome) -> TrainingFinished:
    return TrainingFinished(
        id=id,
        loop="flight-delay",
        run=run,
        attempt=1,
        outcome=outcome,
        reason="better",
        at=AT,
        version="2",
        rows=10,
        seconds=1.0,
        metrics={},
        gate=[],
        mlflow_run=None,
    )


def compared(id: str, index: int) -> WindowJudged:
    return msgspec.structs.replace(judged(id, Finding.HEALTHY), kind=WindowKind.CONTENT, index=index)


def closed(id: str, index: int, *, content: bool = True) -> WindowJudged:
    return msgspec.structs.replace(judged(id, Finding.HEALTHY), index=index, content_follows=content)


def skipped(id: str, index: int) -> WindowSkipped:
    return WindowSkipped(
        id=id,
        loop="flight-delay",
        version="1",
        kind=WindowKind.CONTENT,
        index=index,
        reason="texts and embeddings are not compared: no time",
        at=AT,
        start=AT,
        end=AT,
        rows=500,
    )


def told(*records: FakeRecord) -> Story:
    story = Story("nowhere:0")
    for one in records:
        story._tell(one)
    return story


def test_a_run_is_open_from_its_decision_to_its_end() -> None:
    story = told(record(decided("d1", "v1", Decision.ACCEPTED, run="r1"), "d1", "v1"))
    assert list(story.open_runs) == ["r1"]
    story._tell(record(finished("f1", "r1", Outcome.PROMOTED), "f1", "d1"))
    assert not story.open_runs


async def test_content_is_waited_for_until_it_is_judged_or_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    story = told(
        *(record(closed(f"i{n}", n, content=n != 2), f"i{n}") for n in range(4)), record(compared("c0", 0), "c0")
    )
    assert [index for _, _, index in story.open_contents] == [1, 3]
    coming = iter([record(skipped("s1", 1), "s1"), record(compared("c3", 3), "c3")])

    async def read(timeout: float) -> None:
        story._tell(next(coming))

    monkeypatch.setattr(story, "read", read)
    assert await story.until_contents_are_compared() == []
    assert next(coming, None) is None, "both were waited for"


async def test_content_that_drift_has_lost_is_named_and_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream_cli.story.COMPARED_WITHIN", 0.0)
    story = told(record(closed("i0", 0), "i0"), record(closed("i1", 1), "i1"))
    assert [one.index for one in await story.until_contents_are_compared()] == [0, 1]
    assert await story.until_contents_are_compared() == []


def test_a_repeated_event_is_told_once() -> None:
    end = record(finished("f1", "r1", Outcome.REJECTED), "f1", "d1")
    assert len(told(end, end).told) == 1


def test_the_timeline_keeps_verdicts_that_led_to_something() -> None:
    story = told(
        record(judged("v0", Finding.HEALTHY), "v0"),
        record(judged("v1", Finding.DETECTED), "v1"),
        record(decided("d1", "v1", Decision.ACCEPTED, run="r1"), "d1", "v1"),
    )
    assert [(row["id"], row["caused_by"]) for row in story.timeline()] == [("v1", None), ("d1", "v1")]


@pytest.mark.parametrize("value", [b"{}", b'{"loop":', b"\xff", b"[" * 100_000, b""])
def test_a_record_that_is_not_ours_is_passed_over(value: bytes) -> None:
    strange = FakeRecord(value, Envelope(id="x", type="millstream.model.state.v1", source="stranger").headers())
    assert told(strange).told == []


def test_a_record_with_broken_headers_is_passed_over() -> None:
    assert told(FakeRecord(b"{}", [("ce_type", b"\xff")])).told == []


def test_news_is_what_somebody_would_want_to_be_told() -> None:
    assert line_of(Told("v0", None, judged("v0", Finding.HEALTHY)), {}) is None
    line = line_of(Told("v1", None, judged("v1", Finding.DETECTED)), {})
    assert line is not None
    assert "detected: effect 0.31" in line
    line = line_of(Told("s1", None, skipped("s1", 7)), {})
    assert line == "2013-05-31 11:33  drift    window 7: texts and embeddings are not compared: no time"


def test_a_comparison_is_in_the_timeline_when_it_moved_something() -> None:
    journal = Journal()
    promoted(journal)
    journal.judged(16, 1750, -0.02, watch=True)
    story = Story("nowhere:0", told=journal.told)
    judged = [row["id"] for row in story.timeline() if row["type"] == "millstream.challenger.judged.v1"]
    assert judged == ["judged-2-False-1000", "judged-2-False-1500"]


def test_where_there_are_several_loops_each_line_names_its_own() -> None:
    story = [Told("v1", None, judged("v1", Finding.DETECTED)), Told("d", "v1", decided("d", "v1", Decision.ACCEPTED))]
    lines = [str(line_of(told, {}, named=True)).split("  ", 1)[1] for told in story]
    assert lines == ["drift    flight-delay: detected: effect 0.31", "trainer  flight-delay: accepted (drift): why"]


@pytest.mark.parametrize("decision", list(Decision))
def test_every_decision_is_news(decision: Decision) -> None:
    line = line_of(Told("d", "v", decided("d", "v", decision)), {})
    assert line is not None
    assert f"{decision.value} (drift): why" in line


def test_a_trial_is_news_at_each_step_and_a_champion_once() -> None:
    journal = Journal()
    promoted(journal)
    journal.state(17, Step.CHAMPION, "2", since=day(15))
    answering: dict[str, str] = {}
    lines = [line for told in journal.told if (line := line_of(told, answering)) is not None]
    steps = [line.split("  ", 1)[1] for line in lines if "rollout" in line]
    assert steps == [
        "rollout  version 2: shadow: as the rollout has it",
        "rollout  version 2: canary 10%: as the rollout has it",
        "rollout  version 2: champion: better by 0.025",
    ]
    answers = [line.split("  ", 1)[1] for line in lines if "serving" in line]
    assert answers == ["serving  champion is version 1", "serving  champion is version 2"]


def test_a_promotion_that_a_person_froze_while_replicas_followed_is_told_once_they_obey() -> None:
    journal, answering = Journal(), dict[str, str]()
    journal.state(10, Step.CHAMPION, "1")
    journal.state(15, Step.CHAMPION, "2", promoting=2)
    journal.state(16, Step.CHAMPION, "2", since=day(15), promoting=2, frozen="Ada: Black Friday")
    journal.state(16, Step.CHAMPION, "2", since=day(15), frozen="Ada: Black Friday")
    journal.state(17, Step.ROLLED_BACK, "1")
    lines = [line for told in journal.told if (line := line_of(told, answering)) is not None]
    assert [line.split("  ", 1)[1] for line in lines] == [
        "serving  champion is version 1",
        "serving  champion is version 2",
        "serving  champion is version 1",
    ]
