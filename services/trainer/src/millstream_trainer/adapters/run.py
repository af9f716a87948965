"""One training run, from history to a judged package. Runs in a process of its own.

It is written down for people beside and after that (`tracking`), and waits for none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from millstream.contracts.events import ModelRef
from millstream.contracts.package import MODEL_FILE, BadPackage
from millstream.contracts.tasks import Task
from millstream.contracts.times import from_datetime
from millstream.errors import RetryLater
from millstream.project import Loop, load_project
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters import onnx_graph
from millstream_trainer.adapters.choice import Choice, choose
from millstream_trainer.adapters.estimators import Start, estimator
from millstream_trainer.adapters.learning import Learned, Learner
from millstream_trainer.adapters.package_files import metrics_of, package_files
from millstream_trainer.adapters.phases import Phases
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.adapters.warm_start import NoStart, kept, start_of
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.answers import Answers, knowing_nothing
from millstream_trainer.domain.broken import BROKEN_INPUTS, BROKEN_LABELS
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.gate import FEWEST_ROWS, LARGEST_DIFFERENCE, Evidence, judge, largest_difference, verdict
from millstream_trainer.domain.record import Record
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.slices import slices_of
from millstream_trainer.domain.table import Table
from millstream_trainer.errors import RunFailed
from millstream_trainer.ports import History, Tracker


def run(spec: RunSpec, place: Workplace, tracking: Tracking, hear: Callable[[str], None]) -> RunResult:
    """The whole run, with the real adapters; `hear` is told each phase. Raises RunFailed and others, each with a reason."""
    phases = Phases(loop=spec.loop, run=spec.run, hear=hear)
    with phases.phase("start"):
        from millstream_trainer.adapters.feast_history import FeastHistory
        from millstream_trainer.adapters.mlflow_tracker import MlflowTracker, NoTracker

        project = load_project(place.project)
        if spec.loop not in project.loops:
            raise RunFailed(f"no loop {spec.loop!r} in {place.project}")
        tracker: Tracker = MlflowTracker(place.mlflow, place.mlflow_patience) if place.mlflow else NoTracker()
        loop = project.loops[spec.loop]
        tracking.begin(tracker, spec, _params(loop))
        history = FeastHistory(project=project, place=place)
    return train(
        spec,
        loop,
        history=history,
        tracking=tracking,
        packages=PackageStore(place.packages),
        threads=place.threads,
        phases=phases,
        project=Path(place.project),
    )


def train(
    spec: RunSpec,
    loop: Loop,
    *,
    history: History,
    tracking: Tracking,
    packages: PackageStore,
    threads: int,
    phases: Phases,
    project: Path | None = None,
) -> RunResult:
    """History → choice → fit → graph → gate → package. The same spec and history give the same model."""
    with phases.phase("dataset"):
        data = _whole(spec, history.read(spec))
        learn, holdout = data.table.split(from_datetime(spec.at) - loop.train.holdout)
        _check(loop.model.task, learn, holdout)
    learner = Learner(estimator(loop.model.estimator, project), loop, learn, threads=threads)
    with phases.phase("choice"):
        choice = choose(spec, loop, learner, learn, _start(spec, loop, data, learner, packages))
    with phases.phase("fit"):
        fitted_on = learn.asked_from(choice.candidate.since)
        if len(fitted_on) < FEWEST_ROWS:
            raise RunFailed(f"history {choice.candidate.name} has {len(fitted_on)} rows, {FEWEST_ROWS} are needed")
        learned = _learned(learner, fitted_on, choice)
    with phases.phase("export"):
        inputs = [column.declared() for column in learn.columns]
        graph = learned.graph(inputs)
    with phases.phase("score"):
        evidence = _evidence(spec, loop, packages, learned, graph, fitted_on, holdout)
        checks = judge(evidence)
        passed, reason = verdict(checks)
    metrics = metrics_of(evidence, fitted_on, holdout, data.left_out, choice.metrics)
    notes = [*_of_broken_data(spec, data), *choice.notes]
    if passed and loop.train.refit:
        with phases.phase("refit"):
            everything = data.table.asked_from(choice.candidate.since)
            again = _learned(learner, everything, choice)
            learned, graph, fitted_on = again, _same(again, again.graph(inputs), everything), everything
            notes.append(
                f"refit on all {len(everything)} rows after the gate: its numbers are of a twin without the holdout"
            )
    reason = "; ".join((reason, *notes))
    with phases.phase("package"):
        manifest, files = package_files(
            spec,
            loop,
            data,
            train=fitted_on,
            holdout=holdout,
            learned=learned,
            graph=graph,
            evidence=evidence,
            metrics=metrics,
            notes=notes,
            native=kept(loop, learned, fitted_on, choice.start),
        )
        try:
            uri, sha256 = packages.save(f"{spec.loop}/{spec.version}-{spec.run}-{spec.attempt}", files)
        except OSError as error:
            raise RunFailed(f"the package cannot be saved: {error}") from error
    model = ModelRef(version=spec.version, run=spec.run, uri=uri, sha256=sha256, at=spec.at)
    with phases.phase("mlflow"):
        tracked = tracking.id()
    result = RunResult(
        passed=passed,
        reason=reason,
        model=model,
        rows=len(fitted_on),
        metrics={**metrics, "row_milliseconds": evidence.milliseconds, **phases.seconds},
        gate=checks,
        mlflow_run=tracked,
    )
    importance = learned.fitted.importance()
    tracking.finished(
        Record(
            result=result,
            answers_at_once=spec.champion is None or not (loop.rollout.shadow or loop.rollout.canary),
            files=files,
            tags={"millstream.content_sha256": manifest.lineage.content_sha256, "millstream.package": uri},
            dataset=manifest.lineage.content_sha256,
            draw=lambda: charts(evidence, importance),
        )
    )
    return result


def charts(evidence: Evidence, importance: Mapping[str, float]) -> Mapping[str, bytes]:
    """Drawn only where somebody keeps them: matplotlib takes a second to import."""
    from millstream_trainer.adapters import plots

    return plots.charts(evidence, importance)


def _whole(spec: RunSpec, data: Dataset) -> Dataset:
    """The rows that were asked while inputs were whole."""
    table = data.table.without((from_datetime(start), from_datetime(end)) for start, end in spec.broken)
    if table is data.table:
        return data
    return replace(data, table=table, left_out={**data.left_out, BROKEN_INPUTS: len(data.table) - len(table)})


def _of_broken_data(spec: RunSpec, data: Dataset) -> list[str]:
    said = (
        (BROKEN_INPUTS, "asked while inputs were broken", spec.broken),
        (BROKEN_LABELS, "labelled while labels were broken", spec.broken_labels),
    )
    notes = []
    for reason, what, windows in said:
        if rows := data.left_out.get(reason):
            last = ", ".join(f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" for start, end in windows[-3:])
            notes.append(f"{rows} rows {what} are left out ({len(windows)} windows; the last: {last})")
    return notes


def _check(task: Task, learn: Table, holdout: Table) -> None:
    """Refuse at once what no fit can help."""
    if len(holdout) < FEWEST_ROWS or len(learn) < FEWEST_ROWS:
        raise RunFailed(f"{len(learn)} training rows and {len(holdout)} in the holdout; each needs {FEWEST_ROWS}")
    if len(set(learn.labels.tolist())) < 2:
        raise RunFailed(
            f"all {len(learn)} training rows have the label {learn.labels[0]}: there is nothing to tell apart"
        )


def _start(
    spec: RunSpec, loop: Loop, data: Dataset, learner: Learner, packages: PackageStore
) -> Start | NoStart | None:
    """Where warm starts begin, or why there are none; None where nobody asks for one."""
    if not loop.model.goes_on:
        return None
    try:
        return start_of(spec, loop, data, learner, packages)
    except NoStart as no:
        return no


def _learned(learner: Learner, table: Table, choice: Choice) -> Learned:
    learned = learner.learn(table, choice.params, start=choice.start)
    if choice.calibration is None:
        return learned
    return replace(learned, corrections=(*learned.corrections, choice.calibration))


def _evidence(
    spec: RunSpec, loop: Loop, packages: PackageStore, learned: Learned, graph: bytes, learn: Table, holdout: Table
) -> Evidence:
    task = loop.model.task
    asked = onnx_graph.Asked(graph, [column.declared() for column in learn.columns], onnx_graph.OUTPUTS[task])
    champion, champion_error = _champion(spec, task, packages, holdout)
    return Evidence(
        labels=holdout.labels,
        challenger=Answers(task=task, values=asked.score(holdout), classes=learned.classes),
        native=learned.answers(holdout),
        champion=champion,
        champion_error=champion_error,
        knowing_nothing=knowing_nothing(task, learn.labels, len(holdout)),
        package_bytes=len(graph),
        milliseconds=asked.milliseconds(holdout),
        tolerance=loop.gate.tolerance,
        slices=slices_of(holdout, loop.gate.slices),
        slice_tolerance=loop.gate.slice_tolerance,
        drifted=_drifted(spec, holdout),
    )


def _drifted(spec: RunSpec, holdout: Table) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    """Holdout rows asked since the change; None where nothing changed, or all of them are."""
    if spec.changed_at is None:
        return None
    rows = holdout.known_at >= from_datetime(spec.changed_at)
    return None if rows.all() else rows


def _champion(spec: RunSpec, task: Task, packages: PackageStore, holdout: Table) -> tuple[Answers | None, str | None]:
    """The champion's answers on the holdout, or why there are none (the gate then stays closed)."""
    if spec.champion is None:
        return None, None
    try:
        manifest = packages.manifest(spec.champion)
        if manifest.task != task:
            return None, f"it answers task {manifest.task}, the loop is {task} now; give the loop another name"
        graph = packages.file(spec.champion, manifest, MODEL_FILE)
        values = onnx_graph.Asked(graph, manifest.inputs, manifest.output).score(holdout)
        return Answers(task=task, values=values, classes=tuple(manifest.classes)), None
    except (BadPackage, RetryLater, KeyError) as error:
        return None, f"{type(error).__name__}: {error}"


def _same(learned: Learned, graph: bytes, table: Table) -> bytes:
    """`graph`, when it answers as the model that it was exported from. Raises RunFailed."""
    output = onnx_graph.OUTPUTS[learned.task]
    values = onnx_graph.Asked(graph, [column.declared() for column in table.columns], output).score(table)
    worst = largest_difference(table.labels, Answers(task=learned.task, values=values), learned.answers(table))
    if not worst <= LARGEST_DIFFERENCE:
        raise RunFailed(f"the refit's graph and model differ by {worst:.2g}, {LARGEST_DIFFERENCE:.0e} is allowed")
    return graph


def _params(loop: Loop) -> dict[str, str]:
    """What was asked for, as MLflow parameters."""
    model = loop.model
    asked = {
        **{name: str(value) for name, value in model.params.model_dump().items()},
        "estimator": model.estimator,
        "task": str(model.task),
        "features": loop.predict.features,
        "label": loop.label.value.text,
        "seed": str(loop.train.seed),
        "history": str(loop.train.model_dump(mode="json")["history"]),
        "class_weight": model.class_weight,
        "calibration": model.calibration,
    }
    if model.settings:
        asked["settings"] = str([params.model_dump(exclude_unset=True) for params in model.settings])
    if model.search is not None:
        asked["search"] = str(model.search.model_dump(mode="json"))
    return asked
