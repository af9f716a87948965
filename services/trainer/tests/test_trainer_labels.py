"""Labels of a run: from the label stream, by prediction id, or both; as known at the run's time, each question's first."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import Cause, LabelTold
from millstream.contracts.tasks import Task
from millstream.contracts.times import HOUR, from_datetime, to_datetime, to_rfc3339
from millstream.contracts.topics import LABELS
from millstream.project import Loop, Stream, load_project
from millstream.project.told import TOLD
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_trainer.adapters.feast_history import FeastHistory
from millstream_trainer.adapters.lake_labels import joined, labels
from millstream_trainer.adapters.lake_questions import LAKE_GROUP, questions
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

DAWN = from_datetime(datetime.fromisoformat("2013-01-01T06:00:00Z"))
TOLD_POSITIONS = {LABELS.name: {0: 2}}


class Quay:
    """A lake that ships and labels are put into; times in hours after dawn."""

    def __init__(self, harbour: Path, lake: Path) -> None:
        self.project = load_project(harbour)
        self.loop: Loop = self.project.loops["tides"]
        self.lake = Lake(str(lake))
        self._next: dict[str, int] = {}

    def expect(self, *ships: tuple[str, float]) -> None:
        self._add(
            self.project.streams["ships-expected"],
            [
                ({"visit": ship, "announced_at": _at(known), "pier": "west", "length": 90.0}, known)
                for ship, known in ships
            ],
        )

    def arrive(self, *ships: tuple[str, float, float | None]) -> None:
        self._add(
            self.project.streams["ships-arrived"],
            [({"visit": ship, "arrived_at": _at(known), "delay": delay}, known) for ship, known, delay in ships],
        )

    def tell(self, *said: tuple[str, float, Any], loop: str = "tides") -> None:
        """By the ship's name: its prediction's id is a hash of that."""
        self._add(
            TOLD,
            [
                (
                    {
                        "id": derived_id(ship, str(value)),
                        "loop": loop,
                        "prediction_id": derived_id("tides", ship),
                        "value": value,
                        "told_at": _at(known),
                    },
                    known,
                )
                for ship, known, value in said
            ],
        )

    def learn(
        self, at: float = 100.0, positions: dict[str, dict[int, int]] | None = None
    ) -> tuple[dict[str, Any], Any]:
        """(ship → its label and when that was known, what is left out)."""
        spec = spec_at(at, positions or {})
        asked = questions(self.lake, self.loop, spec, [])
        rows, left_out = joined(asked, labels(self.lake, self.loop, spec), self.loop)
        hours = (rows["_label_known_at"].dt.epoch("us") - DAWN) / HOUR
        found = dict(zip(rows["_question"], zip(rows["_label"], hours, strict=True), strict=True))
        return found, {why: count for why, count in left_out.items() if count}

    def _add(self, stream: Stream, events: Sequence[tuple[dict[str, Any], float]]) -> None:
        start = self._next.get(stream.name, 0)
        self._next[stream.name] = end = start + len(events)
        times = [_micros(known) for _, known in events]
        rows = events_table(
            table_schema(stream.event_schema),
            partition=0,
            offsets=list(range(start, end)),
            event_times=times,
            known_at=times,
            ids=[event[stream.id] for event, _ in events],  # type: ignore[index]
            events=[event for event, _ in events],
        )
        self.lake.append(stream.name, [LakeBatch(partition=0, end=end - 1, rows=rows)], group=LAKE_GROUP)


def spec_at(at: float, positions: dict[str, dict[int, int]]) -> RunSpec:
    return RunSpec(
        loop="tides",
        run="r1",
        attempt=1,
        version="1",
        at=to_datetime(_micros(at)),
        cause=Cause.MANUAL,
        request="p-1",
        positions=positions,
        champion=None,
    )


def _micros(hours: float) -> int:
    return DAWN + round(hours * HOUR)


def _at(hours: float) -> str:
    return to_rfc3339(_micros(hours))


@pytest.fixture
def quay(harbour: Path, tmp_path: Path) -> Quay:
    return Quay(harbour, tmp_path / "lake")


def test_labels_by_prediction_id_alone_are_learned(quay: Quay) -> None:
    quay.expect(("anna", 0), ("berta", 1), ("clara", 2))
    quay.tell(("anna", 5, True), ("clara", 6, False))

    assert quay.learn() == ({"anna": (1, 5), "clara": (0, 6)}, {"without_label": 1})


def test_of_both_kinds_the_label_that_was_known_first_counts(quay: Quay) -> None:
    quay.expect(("anna", 0), ("berta", 0), ("clara", 0))
    quay.arrive(("anna", 5, 30.0), ("berta", 5, 30.0), ("clara", 5, 30.0))
    quay.tell(("anna", 4, False), ("berta", 6, False), ("clara", 6, True))

    learned, left_out = quay.learn()

    assert learned == {"anna": (0, 4), "berta": (1, 5), "clara": (1, 5)}
    assert left_out == {"label_contradicting": 2, "label_repeated": 1}


def test_at_one_moment_the_streams_label_counts(quay: Quay) -> None:
    quay.expect(("anna", 0))
    quay.arrive(("anna", 5, 30.0))
    quay.tell(("anna", 5, False))

    assert quay.learn() == ({"anna": (1, 5)}, {"label_contradicting": 1})


def test_a_label_counts_from_when_it_was_known(quay: Quay) -> None:
    quay.expect(("anna", 0), ("berta", 0), ("clara", 3))
    quay.tell(("anna", 5, True), ("berta", 25, True), ("clara", 2, True))

    early, _ = quay.learn(at=4.9)
    later, left_out = quay.learn(at=30)

    assert early == {}
    assert later == {"anna": (1, 5)}, "berta's came after label.within, clara's before anybody had asked"
    assert left_out == {"label_outside_within": 2}


def test_a_label_in_time_counts_where_the_other_kind_is_not(quay: Quay) -> None:
    quay.expect(("anna", 0))
    quay.arrive(("anna", 25, 30.0))
    quay.tell(("anna", 6, False))

    assert quay.learn() == ({"anna": (0, 6)}, {})


def test_what_is_said_twice_counts_once_and_what_contradicts_is_counted(quay: Quay) -> None:
    quay.expect(("anna", 0), ("berta", 0))
    quay.tell(("anna", 5, True), ("anna", 6, True), ("anna", 7, False), ("berta", 5, False))
    quay.arrive(("berta", 9, 1.0), ("berta", 9.5, 60.0), ("berta", 9.6, None))

    learned, left_out = quay.learn()

    assert learned == {"anna": (1, 5), "berta": (0, 5)}
    assert left_out == {"label_repeated": 2, "label_contradicting": 2, "label_null": 1}


def test_other_loops_and_questions_that_are_in_no_stream_teach_nothing(quay: Quay) -> None:
    quay.expect(("anna", 0))
    quay.tell(("anna", 5, True), loop="ebbs")
    quay.tell(("asked over HTTP alone", 5, True), ("anna", 6, False))

    assert quay.learn() == ({"anna": (0, 6)}, {"label_without_question": 1})


def test_what_came_after_the_run_began_belongs_to_the_next(quay: Quay) -> None:
    quay.expect(*((ship, 0) for ship in ("anna", "berta", "clara", "dora")))
    quay.tell(("anna", 5, True), ("berta", 5, True), ("clara", 5, True), ("dora", 5, True))

    assert set(quay.learn(positions=TOLD_POSITIONS)[0]) == {"anna", "berta", "clara"}
    assert len(quay.learn(positions={LABELS.name: {}})[0]) == 4, "Kafka has none of them any more, the lake has all"


@pytest.mark.parametrize(
    ("task", "value", "said", "learned"),
    [
        ("binary", "delay >= 10", [True, False, 1, 0.0, "wet", None], [1, 0, 1, 0, None, None]),
        ("regression", "delay", [12, -0.5, 1e300, "wet", True, None], [12.0, -0.5, 1e300, None, 1.0, None]),
        ("multiclass", "pier", ["west", "east", "7", "true", "", None], ["west", "east", "7", "true", "", None]),
    ],
)
def test_values_are_read_as_the_task_has_them(
    harbour: Path, tmp_path: Path, task: str, value: str, said: list[Any], learned: list[Any]
) -> None:
    shutil.copytree(harbour, tmp_path / "project")
    file = tmp_path / "project" / "loops" / "tides.yaml"
    text = file.read_text().replace("delay >= 10", value).replace("model: {", f"model: {{task: {Task(task)}, ")
    file.write_text(text)
    quay = Quay(tmp_path / "project", tmp_path / "lake")
    names = [f"ship-{n}" for n in range(len(said))]
    quay.expect(*((name, 0) for name in names))
    quay.tell(*((name, 5, one) for name, one in zip(names, said, strict=True)))

    found, left_out = quay.learn()

    assert [found[name][0] if name in found else None for name in names] == learned
    assert left_out.get("label_invalid", 0) == sum(a is None for a in learned) - 1
    assert left_out["label_null"] == 1


def test_without_any_label_the_run_says_where_it_looked(quay: Quay, harbour: Path, tmp_path: Path) -> None:
    place = Workplace(
        project=str(harbour),
        lake=quay.lake.uri,
        packages="",
        mlflow=None,
        data=str(tmp_path / "data"),
        threads=1,
        lake_patience=0.2,
        mlflow_patience=1.0,
    )
    history = FeastHistory(project=quay.project, place=place)
    quay.expect(("anna", 0))
    with pytest.raises(
        RunFailed, match="the lake has nothing of stream ships-arrived yet, nor labels by prediction id"
    ):
        history.read(spec_at(50, {}))
    quay.tell(("berta", 5, True))
    with pytest.raises(RunFailed, match=r"ships-arrived or by prediction id by .*: 1 questions, 0 and 1 labels"):
        history.read(spec_at(50, {}))
    quay.tell(("anna", 6, True))
    rows = history.read(spec_at(50, {})).table
    assert (rows.questions.tolist(), rows.labels.tolist()) == (["anna"], [1])


def test_the_lake_keeps_what_ingest_writes() -> None:
    """One schema for who writes the event, who keeps it and who decodes it."""
    told = LabelTold(id="a", loop="tides", prediction_id="b", value=True, told_at=to_datetime(DAWN))
    written = msgspec.json.decode(told.encode())
    assert TOLD.validator().is_valid(written)
    assert set(written) == set(TOLD.event_schema["properties"])
