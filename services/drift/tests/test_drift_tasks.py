"""What drift makes of answers and labels, for each of the three tasks."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from millstream.codecs.codec import JSON
from millstream.contracts.events import OtherAnswer
from millstream.contracts.tasks import Task
from millstream.contracts.topics import PREDICTIONS
from millstream.errors import RejectEvent
from millstream.project import Loop
from millstream.project.expression import compile_label
from millstream.project.gate import Gate
from millstream_drift.adapters.kafka_events import KafkaEvents
from millstream_drift.adapters.memory import MemoryModels
from millstream_drift.domain.answer import cell_of
from millstream_drift.domain.events import Heard, Label, Other, Question
from millstream_drift.domain.snapshot import decode_snapshot, encode_snapshot
from millstream_drift.metrics import DriftMetrics

from .drift_kit import JUNE, LANDED, LOOP, Desk, Topics, World, baseline, landing, loop, prediction, streams


def loop_of(task: Task, label: str) -> Loop:
    asked = loop()
    return asked.model_copy(
        update={
            "model": asked.model.model_copy(update={"task": task.value}),
            "label": asked.label.model_copy(update={"value": compile_label(label)}),
            "gate": Gate(slices=("carrier", "distance")),
        }
    )


def read(loop: Loop, topic: str, event: Any) -> Heard:
    models = MemoryModels()
    models.known[LOOP, "1"] = baseline("1")
    reader = KafkaEvents(
        loops={LOOP: loop},
        streams=streams(),
        codecs=dict.fromkeys(streams(), JSON),
        models=models,
        metrics=DriftMetrics(CollectorRegistry()),
        clock=lambda: 0.0,
        patience=60.0,
    )
    topics = Topics().add([(topic, event, JUNE)])
    (record,) = [record for log in topics.records.values() for record in log]
    ((_, heard),) = reader.read(record)
    return heard


@pytest.mark.parametrize(
    ("task", "output", "cell"),
    [
        (Task.BINARY, {"probability": 0.25}, 0.25),
        (Task.MULTICLASS, {"late": 0.2, "on_time": 0.4, "early": 0.4}, "early"),
        (Task.REGRESSION, {"value": -3.5}, -3.5),
    ],
)
def test_a_question_carries_both_answers_whole(task: Task, output: dict[str, float], cell: object) -> None:
    other = OtherAnswer(version="2", role="challenger", output=output, ms=0.5)
    event = prediction(
        "a", JUNE, output=output, other=other, producer="//airline", timings_ms={"model": 0.25}, fallback="late"
    )
    heard = read(loop_of(task, "arr_delay"), PREDICTIONS.name, event)
    assert isinstance(heard, Question)
    assert (heard.output, heard.producer, heard.ms, heard.fallback) == (output, "//airline", 0.25, "late")
    assert heard.other == Other("2", "challenger", output, "", 0.5)
    assert heard.slices == ("UA", "500")
    assert cell_of(task, output) == cell


@pytest.mark.parametrize(
    ("task", "label", "truth"),
    [
        (Task.BINARY, "arr_delay >= 15", True),
        (Task.REGRESSION, "arr_delay", 40.0),
        (Task.MULTICLASS, "flight_id", "flight-1"),
    ],
)
def test_a_label_is_what_its_task_compares(task: Task, label: str, truth: object) -> None:
    heard = read(loop_of(task, label), LANDED, landing("flight-1", JUNE))
    assert isinstance(heard, Label)
    assert heard.value == truth
    assert type(heard.value) is type(truth)


def test_a_text_is_no_label_of_a_regression() -> None:
    with pytest.raises(RejectEvent, match="'flight-1', task regression needs a finite number"):
        read(loop_of(Task.REGRESSION, "flight_id"), LANDED, landing("flight-1", JUNE))


@pytest.mark.parametrize("more", [{"output": {"value": 3.0}}, {"other": OtherAnswer(version="2", role="challenger")}])
def test_no_answer_of_the_task_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(RejectEvent, match="which is no answer of task binary"):
        read(loop_of(Task.BINARY, "arr_delay >= 15"), PREDICTIONS.name, prediction("a", JUNE, **more))


def test_a_failure_of_the_other_is_no_fault_of_the_record() -> None:
    other = OtherAnswer(version="2", role="challenger", failure="raised")
    heard = read(loop_of(Task.BINARY, "arr_delay >= 15"), PREDICTIONS.name, prediction("a", JUNE, other=other))
    assert isinstance(heard, Question)
    assert heard.other == Other("2", "challenger", {}, "raised", 0.0)


async def test_a_snapshot_of_an_earlier_release_is_begun_anew() -> None:
    desk = await Desk(Topics().add(World().hours(JUNE, 10).said)).start()
    await desk.read_all()
    await desk.judging.save()
    [(loop, kept)] = desk.snapshots.kept.items()
    again = encode_snapshot(decode_snapshot(kept))
    assert decode_snapshot(again) == decode_snapshot(kept)
    desk.snapshots.kept[loop] = b"drift1" + kept[6:]
    other = await Desk(desk.topics, desk.snapshots).start()
    assert set(other.next.values()) == {0}
    await other.read_all()
    assert other.verdicts == desk.verdicts
