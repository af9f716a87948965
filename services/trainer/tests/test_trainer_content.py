"""Texts and embeddings that drift watches: from the lake into the reference, never into the model."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.content import SAMPLE
from millstream.contracts.package import REFERENCE_FILE, Reference
from millstream.contracts.times import DAY, HOUR, from_datetime
from millstream.project import load_project
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.feast_history import FeastHistory
from millstream_trainer.adapters.memory import MemoryHistory
from millstream_trainer.adapters.phases import Phases
from millstream_trainer.adapters.run import train
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.content import content_reference
from millstream_trainer.domain.reference import longest_constant
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.table import category_column, number_column


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, harbour: Path) -> Workplace:
    home = tmp_path_factory.mktemp("work")
    return Workplace(
        project=str(harbour),
        lake=str(home / "lake"),
        packages=str(home / "packages"),
        data=str(home / "data"),
        mlflow="",
        mlflow_patience=1.0,
        threads=1,
        lake_patience=10.0,
    )


@pytest.fixture(scope="module")
def spec(place: Workplace, first_run: Callable[[str], RunSpec]) -> RunSpec:
    return msgspec.structs.replace(first_run(place.lake), at=datetime(2013, 3, 2, tzinfo=UTC))


def test_the_reference_holds_what_ships_radioed_and_the_model_does_not_read_it(
    place: Workplace, spec: RunSpec, harbour: Path
) -> None:
    project = load_project(harbour)
    data = FeastHistory(project=project, place=place).read(spec)
    packages = PackageStore(place.packages)
    result = train(
        spec,
        project.loops["tides"],
        history=MemoryHistory(data),
        tracking=Tracking(),
        packages=packages,
        threads=1,
        phases=Phases(),
    )
    manifest = packages.manifest(result.model)
    assert {column.name for column in manifest.inputs} & {"radioed", "voice"} == set()
    reference = msgspec.json.decode(packages.file(result.model, manifest, REFERENCE_FILE), type=Reference)
    radioed, voice = reference.content
    assert (radioed.name, radioed.type, len(radioed.texts), radioed.vectors) == ("radioed", "text", SAMPLE, [])
    assert radioed.missing == pytest.approx(0.25, abs=0.03)
    assert all(text.startswith("number ") for text in radioed.texts)
    assert (voice.name, voice.type, voice.missing, len(voice.vectors)) == ("voice", "embedding", 0.0, SAMPLE)
    (_, half, minus) = struct.unpack("<fff", voice.vectors[0])
    assert (half, minus) == (0.5, -1.0)


def test_labels_of_a_time_when_labels_were_broken_are_not_learned(
    place: Workplace, spec: RunSpec, harbour: Path, ships: Any
) -> None:
    history = FeastHistory(project=load_project(harbour), place=place)
    whole = history.read(spec)
    first, last = datetime(2013, 1, 20, tzinfo=UTC), datetime(2013, 1, 25, tzinfo=UTC)
    data = history.read(msgspec.structs.replace(spec, broken_labels=((first, last),)))
    left = sorted(set(whole.table.questions.tolist()) - set(data.table.questions.tolist()))
    assert data.left_out["broken_labels"] == len(left) == len(whole.table) - len(data.table)
    # A ship is expected, and makes fast some hours later: it is its label's time that counts.
    asked = whole.table.known_at[np.isin(whole.table.questions, left)]
    assert from_datetime(first) - DAY < asked.min() < from_datetime(first)
    assert asked.max() < from_datetime(last)
    assert len(left) > 100


def test_a_reference_is_drawn_from_what_was_learned(ships: Any) -> None:
    table = ships.dataset().table
    found = {f"visit-{i}": f"of {i}" for i in range(3000)}
    some = table.take(np.arange(40))
    drawn = content_reference("radioed", found, some, embedding=False)
    assert set(drawn.texts) == {found[id] for id in some.questions}
    shuffled = content_reference("radioed", dict(reversed(found.items())), some, embedding=False)
    assert shuffled == drawn


def test_the_longest_constant_time_of_a_column() -> None:
    hours = np.array([0, 1, 2, 3, 4, 5, 6, 7]) * HOUR
    rain = number_column("rain", "feature", np.array([0, 0, 0.5, 0, np.nan, 0, 0, 2.0]))
    assert longest_constant(rain, hours) == 3 * HOUR, "a null interrupts nothing"
    carrier = category_column("carrier", "input", ["UA", "B6", "UA", "B6", "UA", "B6", "UA", "B6"])
    assert longest_constant(carrier, hours) == 0
    assert longest_constant(replace(rain, values=np.full(8, np.nan, np.float32)), hours) == 0
