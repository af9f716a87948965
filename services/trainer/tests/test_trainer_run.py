"""One run, from rows to a judged package, with history and tracking in memory."""

from __future__ import annotations

import errno
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.events import Cause, ModelRef
from millstream.contracts.package import MODEL_FILE, REFERENCE_FILE, Reference
from millstream.contracts.times import from_datetime
from millstream.project import Loop, load_project
from millstream.project.gate import Gate
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.memory import MemoryHistory, MemoryTracker
from millstream_trainer.adapters.onnx_graph import Asked
from millstream_trainer.adapters.phases import Phases
from millstream_trainer.adapters.run import train
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.table import category_column, number_column
from millstream_trainer.errors import RunFailed, TrackingFailed

SPEC = RunSpec(
    loop="tides",
    run="r1",
    attempt=1,
    version="1",
    at=datetime(2013, 3, 2, tzinfo=UTC),
    cause=Cause.FIRST_MODEL,
    request="labels-60",
    positions={"ships-expected": {0: 2999}},
    champion=None,
)


@pytest.fixture(scope="session")
def tides_loop(harbour: Path) -> Loop:
    return load_project(harbour).loops["tides"]


@pytest.fixture
def packages(tmp_path: Path) -> PackageStore:
    return PackageStore(str(tmp_path / "packages"))


def trained(
    loop: Loop,
    data: Dataset,
    packages: PackageStore,
    spec: RunSpec = SPEC,
    tracking: Tracking | None = None,
    threads: int = 1,
    hosts: str = "",
) -> RunResult:
    return train(
        spec,
        loop,
        history=MemoryHistory(data),
        tracking=tracking or Tracking(),
        packages=packages,
        threads=threads,
        hosts=hosts,
        phases=Phases(),
    )


def test_a_first_model_beats_the_base_rate_and_is_packed(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    result = trained(tides_loop, ships.dataset(), packages)
    assert result.passed, result.reason
    assert [check.name for check in result.gate][-1] == "better_than_base_rate"
    manifest = packages.manifest(result.model)
    assert [(i.name, i.source, i.type) for i in manifest.inputs] == [
        ("pier_arrivals__mean_delay_6h", "feature", "number"),
        ("length", "input", "number"),
        ("pier", "input", "category"),
    ]
    assert manifest.lineage.train_rows + manifest.lineage.holdout_rows == 3000
    assert manifest.views == {"pier_arrivals": "abc"}
    assert result.metrics["auc"] > 0.8
    assert result.metrics["onnx_max_difference"] < 1e-6


def test_the_same_rows_give_the_same_package_with_any_number_of_threads(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    first = trained(tides_loop, ships.dataset(), packages, threads=1)
    again = trained(tides_loop, ships.dataset(), packages, threads=2)
    assert again.model.sha256 == first.model.sha256


def test_nothing_asked_in_the_holdout_is_learned(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    result = trained(tides_loop, ships.dataset(), packages)
    data = ships.dataset()
    late = data.table.known_at >= (SPEC.at.timestamp() - 14 * 86400) * 1e6
    flipped = replace(data, table=replace(data.table, labels=np.where(late, 1 - data.table.labels, data.table.labels)))
    other = trained(tides_loop, flipped, packages, msgspec.structs.replace(SPEC, run="r2"))
    graphs = [packages.file(r.model, packages.manifest(r.model), MODEL_FILE) for r in (result, other)]
    assert graphs[0] == graphs[1]
    assert not other.passed


def test_a_challenger_that_is_the_champion_again_is_rejected(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    champion = trained(tides_loop, ships.dataset(), packages).model
    spec = msgspec.structs.replace(SPEC, run="r2", version="2", champion=champion)
    result = trained(tides_loop, ships.dataset(), packages, spec)
    assert not result.passed
    assert "+0.00000 ± 0.00000 a row" in result.reason
    assert result.metrics["champion_log_loss"] == pytest.approx(result.metrics["log_loss"])


def test_a_challenger_that_knows_more_wins(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    data = ships.dataset()
    blind = replace(data.table.columns[0], values=np.full(3000, np.nan, dtype=np.float32))
    champion = trained(
        tides_loop, replace(data, table=replace(data.table, columns=(blind, *data.table.columns[1:]))), packages
    ).model
    spec = msgspec.structs.replace(SPEC, run="r2", version="2", champion=champion)
    result = trained(tides_loop, data, packages, spec)
    assert result.passed, result.reason


def test_a_champion_that_cannot_be_read_keeps_the_gate_closed(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    lost = ModelRef(version="1", run="r0", uri="file:///nowhere", sha256="0", at=SPEC.at)
    result = trained(tides_loop, ships.dataset(), packages, msgspec.structs.replace(SPEC, champion=lost))
    assert not result.passed
    assert "the champion could not be scored" in result.reason


def test_the_graph_takes_nulls_and_categories_it_never_saw(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    result = trained(tides_loop, ships.dataset(), packages)
    manifest = packages.manifest(result.model)
    graph = packages.file(result.model, manifest, MODEL_FILE)
    one = ships.dataset().table.take(np.arange(2))
    strange = replace(
        one,
        columns=(
            number_column("pier_arrivals__mean_delay_6h", "feature", np.array([np.nan, np.nan])),
            number_column("length", "input", np.array([np.nan, 90])),
            category_column("pier", "input", [None, "south"]),
        ),
    )
    answers = Asked(graph, manifest.inputs, manifest.output).score(strange)
    assert answers.shape == (2,)
    assert np.all((answers > 0) & (answers < 1))


def test_the_reference_describes_the_training_rows(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    result = trained(tides_loop, ships.dataset(), packages)
    manifest = packages.manifest(result.model)
    reference = msgspec.json.decode(packages.file(result.model, manifest, REFERENCE_FILE), type=Reference)
    by_name = {column.name: column for column in reference.columns}
    assert set(by_name["pier"].categories) == {"north", "east", "west"}
    assert sum(by_name["pier"].shares) == pytest.approx(1)
    assert by_name["pier"].missing == pytest.approx(0.02, abs=0.01)
    assert len(by_name["length"].edges) == 9
    assert sum(column.importance for column in reference.columns) == pytest.approx(1)
    assert reference.holdout_loss == pytest.approx(result.metrics["log_loss"])
    assert {len(values) for values in reference.sample.values()} == {2000}


def recorded(tracker: MemoryTracker) -> Tracking:
    tracking = Tracking()
    tracking.begin(tracker, SPEC, {"rounds": "40"})
    return tracking


def test_tracking_gets_parameters_metrics_and_the_package(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    tracker = MemoryTracker()
    tracking = recorded(tracker)
    result = trained(tides_loop, ships.dataset(), packages, tracking=tracking)
    assert result.mlflow_run == "tracked-r1"
    assert tracking.written(patience=30)
    assert tracker.params == {"rounds": "40"}
    assert tracker.metrics == result.metrics
    assert set(tracker.files) == {"model.onnx", "manifest.json", "reference.json"}


def test_a_tracking_server_that_comes_back_during_the_run_gets_its_record(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    tracker = MemoryTracker("begin")
    tracking = recorded(tracker)
    result = trained(tides_loop, ships.dataset(), packages, tracking=tracking)
    assert result.passed, result.reason
    assert result.mlflow_run is None
    assert tracking.written(patience=30)
    assert tracker.metrics == result.metrics


@pytest.mark.parametrize("away", [("begin", "begin"), ("finish",)])
def test_a_tracking_server_that_stays_away_costs_the_record_alone(
    tides_loop: Loop, ships: Any, packages: PackageStore, away: tuple[str, ...]
) -> None:
    tracking = recorded(MemoryTracker(*away))
    result = trained(tides_loop, ships.dataset(), packages, tracking=tracking)
    assert result.passed, result.reason
    assert not tracking.written(patience=30)


def test_a_run_that_fails_is_written_down_with_its_reason() -> None:
    tracker = MemoryTracker()
    tracking = recorded(tracker)
    tracking.failed("too few ships")
    assert tracking.written(patience=30)
    assert tracker.failed == "too few ships"


def test_a_full_disk_fails_the_run_and_leaves_no_half_package(
    tides_loop: Loop, ships: Any, packages: PackageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, raw: bytes) -> int:
        with path.open("wb") as file:
            file.write(raw[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFailed, match=r"the package cannot be saved: .*No space left on device"):
        trained(tides_loop, ships.dataset(), packages)
    assert list((tmp_path / "packages" / "tides").iterdir()) == []


def test_charts_are_drawn_of_what_the_gate_saw(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    tracker = MemoryTracker()
    tracking = recorded(tracker)
    champion = trained(tides_loop, ships.dataset(), packages).model
    spec = msgspec.structs.replace(SPEC, run="r2", champion=champion)
    loop = tides_loop.model_copy(update={"gate": Gate(slices=("pier",))})
    trained(loop, ships.dataset(), packages, spec, tracking=tracking)
    assert tracking.written(patience=60)
    assert set(tracker.charts) == {"calibration.png", "importance.png", "roc.png", "slices.png"}
    assert all(raw.startswith(b"\x89PNG") for raw in tracker.charts.values())


def test_a_holdout_too_small_to_judge_on_fails_the_run(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    spec = msgspec.structs.replace(SPEC, at=datetime(2013, 3, 15, tzinfo=UTC))
    old = r"in the holdout; each needs 200. The newest question with a label is \d+\.\d days old: write a longer train.holdout"
    with pytest.raises(RunFailed, match=old):
        trained(tides_loop, ships.dataset(), packages, spec)


def test_rows_of_one_label_only_fail_the_run(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    data = ships.dataset()
    always = replace(data, table=replace(data.table, labels=np.ones(3000, dtype=np.int8)))
    with pytest.raises(RunFailed, match="nothing to tell apart"):
        trained(tides_loop, always, packages)


def test_an_mlflow_that_is_away_is_a_reason_that_names_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from millstream_trainer.adapters.mlflow_tracker import MlflowTracker

    for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "BACKOFF_JITTER", "TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "1")  # restored afterwards: the tracker sets them
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(TrackingFailed, match=f"MLflow at {url} does not take the run"):
            MlflowTracker(url, patience=0).begin(SPEC, {})


def test_what_was_asked_while_inputs_were_broken_is_not_learned_and_the_run_says_so(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = ships.dataset()
    first, last = datetime(2013, 1, 20, tzinfo=UTC), datetime(2013, 1, 25, tzinfo=UTC)
    times = data.table.known_at
    rows = int(((times >= from_datetime(first)) & (times <= from_datetime(last))).sum())
    assert rows > 100
    result = trained(tides_loop, data, packages, msgspec.structs.replace(SPEC, broken=((first, last),)))
    assert result.metrics["left_out_broken_inputs"] == rows
    assert result.metrics["train_rows"] + result.metrics["holdout_rows"] == len(data.table) - rows
    said = f"{rows} rows asked while inputs were broken are left out (2013-01-20 00:00 to 2013-01-25 00:00)"
    assert said in result.reason
    assert said in packages.manifest(result.model).notes
    before = trained(tides_loop, data, packages, msgspec.structs.replace(SPEC, broken=((first, first),)))
    assert "left_out_broken_inputs" not in before.metrics


def test_a_run_says_how_many_labels_it_does_not_believe(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    spell = datetime(2013, 1, 20, tzinfo=UTC), datetime(2013, 1, 25, tzinfo=UTC)
    data = replace(ships.dataset(), left_out={"broken_labels": 7})
    result = trained(tides_loop, data, packages, msgspec.structs.replace(SPEC, broken_labels=(spell,)))
    assert "7 rows labelled while labels were broken are left out (2013-01-20" in result.reason


def test_a_run_says_how_many_labels_find_no_question(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    result = trained(tides_loop, replace(ships.dataset(), left_out={"label_without_question": 7}), packages)
    assert result.reason.endswith(
        "7 labels by prediction id are not learned: they are about no questions of ships-expected in the run's history"
    )
