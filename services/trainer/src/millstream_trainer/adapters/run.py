"""One training run, from history to a judged package. Runs in a process of its own.

It is written down for people beside and after that (`tracking`), and waits for none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from millstream.contracts.events import GivenModel, ModelRef
from millstream.contracts.package import MODEL_FILE, REMOTE_FILE, BadPackage, InputColumn, Recipe
from millstream.contracts.tasks import Task
from millstream.contracts.times import DAY, from_datetime
from millstream.errors import RetryLater
from millstream.project import Loop, load_project
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters import error_groups, given_model, onnx_graph
from millstream_trainer.adapters.choice import Choice, choose
from millstream_trainer.adapters.estimators import Start, estimator
from millstream_trainer.adapters.learning import Learned, Learner
from millstream_trainer.adapters.left_out import in_words, whole
from millstream_trainer.adapters.package_files import metrics_of, package_files
from millstream_trainer.adapters.phases import Phases
from millstream_trainer.adapters.project_code import code_of
from millstream_trainer.adapters.recipe import asked, asked_of_given, recipe_of
from millstream_trainer.adapters.remote_session import RemoteAsked
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.adapters.warm_start import NoStart, kept, start_of
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.answers import Answers, knowing_nothing
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.gate import FEWEST_ROWS, LARGEST_DIFFERENCE, Evidence, judge, largest_difference, verdict
from millstream_trainer.domain.package import name_of
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
        tracking.begin(tracker, spec, asked(loop) if spec.given is None else asked_of_given(spec.given, loop))
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
        hosts=place.model_hosts,
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
    hosts: str = "",
) -> RunResult:
    """History → choice → fit → graph → gate → package. The same spec and history give the same model."""
    with phases.phase("dataset"):
        data = whole(spec, history.read(spec))
        learn, holdout = data.table.split(from_datetime(spec.at) - loop.train.holdout)
    notes = in_words(spec, loop, data)
    try:
        _check(spec, loop.model.task, data.table, learn, holdout)
        if spec.given is None:
            made = _fitted(spec, loop, data, learn, packages, threads, phases, project)
        else:
            made, holdout = _given(spec.given, loop, learn, holdout, packages, phases, hosts)
    except RunFailed as error:
        # Rows that are missing may be missing for that.
        raise RunFailed("; ".join((str(error), *notes))) from error
    learned, graph, fitted_on = made.learned, made.graph, made.table
    with phases.phase("score"):
        evidence = _evidence(spec, loop, packages, learned, made, holdout, hosts)
        checks = judge(evidence)
        passed, reason = verdict(checks)
    metrics = metrics_of(evidence, fitted_on, holdout, data.left_out, made.metrics)
    notes += [*_of_estimates(loop, holdout), *made.notes]
    if passed and loop.train.refit and made.again is not None:
        with phases.phase("refit"):
            learned, graph, fitted_on = made.again()
            notes.append(
                f"refit on all {len(fitted_on)} rows after the gate: its numbers are of a twin without the holdout"
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
            file=made.file,
            evidence=evidence,
            metrics=metrics,
            notes=notes,
            native=kept(loop, learned, fitted_on, made.start),
            recipe=made.recipe,
            code=code_of(project),
        )
        try:
            uri, sha256 = packages.save(f"{spec.loop}/{name_of(spec)}", files)
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
            package=uri,
            lineage=manifest.lineage,
            draw=lambda: charts(evidence, importance),
        )
    )
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A model before it is judged."""

    learned: Learned
    graph: bytes
    table: Table
    """What it was fitted on; of one that was given the rows before the holdout."""
    metrics: Mapping[str, float]
    notes: Sequence[str]
    file: str = MODEL_FILE
    """What `graph` is called in the package."""
    recipe: Recipe | None = None
    """None: it was given."""
    start: Start | None = None
    again: Callable[[], tuple[Learned, bytes, Table]] | None = None
    """The same fitted on the holdout too; None: nobody can."""


def _fitted(
    spec: RunSpec,
    loop: Loop,
    data: Dataset,
    learn: Table,
    packages: PackageStore,
    threads: int,
    phases: Phases,
    project: Path | None,
) -> Made:
    learner = Learner(estimator(loop.model.estimator, project), loop, learn, threads=threads)
    with phases.phase("choice"):
        choice = choose(spec, loop, learner, learn, _start(spec, loop, data, learner, packages))
    with phases.phase("fit"):
        fitted_on = learn.asked_from(choice.candidate.since)
        if len(fitted_on) < FEWEST_ROWS:
            raise RunFailed(f"history {choice.candidate.name} has {len(fitted_on)} rows, {FEWEST_ROWS} are needed")
        learned = _learned(learner, fitted_on, choice)
    inputs = [column.declared() for column in learn.columns]
    with phases.phase("export"):
        graph = learned.graph(inputs)

    def again() -> tuple[Learned, bytes, Table]:
        everything = data.table.asked_from(choice.candidate.since)
        refitted = _learned(learner, everything, choice)
        return refitted, _same(refitted, refitted.graph(inputs), everything), everything

    return Made(
        learned=learned,
        graph=graph,
        table=fitted_on,
        metrics=choice.metrics,
        notes=choice.notes,
        recipe=recipe_of(loop, choice),
        start=choice.start,
        again=again,
    )


def _given(
    said: GivenModel, loop: Loop, learn: Table, holdout: Table, packages: PackageStore, phases: Phases, hosts: str
) -> tuple[Made, Table]:
    """The model that was given, and the holdout's rows that it may be judged by."""
    holdout = given_model.unseen(said, holdout)
    with phases.phase("fit"):
        found, learned = given_model.read(said, loop.model.task, packages, learn, holdout, hosts)
    with phases.phase("export"):
        graph = found.graph()
    table = given_model.narrowed(learn, found.names)
    made = Made(learned=learned, graph=graph, table=table, metrics={}, notes=[given_model.note(said)])
    return replace(made, file=REMOTE_FILE if said.remote else MODEL_FILE), holdout


def charts(evidence: Evidence, importance: Mapping[str, float]) -> Mapping[str, bytes]:
    """Drawn only where somebody keeps them: matplotlib takes a second to import."""
    from millstream_trainer.adapters import plots

    return plots.charts(evidence, importance)


def _of_estimates(loop: Loop, holdout: Table) -> list[str]:
    if not loop.drift.estimate or loop.model.task is not Task.REGRESSION or len(holdout) >= error_groups.ENOUGH:
        return []
    return [
        f"drift.estimate has nothing to go by: {len(holdout)} rows in the holdout, {error_groups.ENOUGH} are needed to tell "
        "where the model errs; write a longer train.holdout"
    ]


def _check(spec: RunSpec, task: Task, table: Table, learn: Table, holdout: Table) -> None:
    """Refuse at once what no fit can help."""
    if len(holdout) < FEWEST_ROWS or len(learn) < FEWEST_ROWS:
        few = f"{len(learn)} training rows and {len(holdout)} in the holdout; each needs {FEWEST_ROWS}"
        if len(holdout) < FEWEST_ROWS <= len(learn):
            unlabelled = from_datetime(spec.at) - int(table.known_at[-1])
            few += (
                f". The newest question with a label is {unlabelled / DAY:.1f} days old: write a longer train.holdout"
            )
        raise RunFailed(few)
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
    spec: RunSpec, loop: Loop, packages: PackageStore, learned: Learned, made: Made, holdout: Table, hosts: str
) -> Evidence:
    task, graph, learn = loop.model.task, made.graph, made.table
    inputs = [column.declared() for column in learn.columns]
    asked = _asked(made.file, graph, inputs, onnx_graph.OUTPUTS[task], hosts)
    champion, champion_error = _champion(spec, task, packages, holdout, hosts)
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


def _champion(
    spec: RunSpec, task: Task, packages: PackageStore, holdout: Table, hosts: str
) -> tuple[Answers | None, str | None]:
    """The champion's answers on the holdout, or why there are none (the gate then stays closed).

    Raises RunFailed for one that runs elsewhere and does not answer: that is no fault of the challenger's.
    """
    if spec.champion is None:
        return None, None
    file = MODEL_FILE
    try:
        manifest = packages.manifest(spec.champion)
        if manifest.task != task:
            return None, f"it answers task {manifest.task}, the loop is {task} now; give the loop another name"
        file = REMOTE_FILE if REMOTE_FILE in manifest.files else MODEL_FILE
        graph = packages.file(spec.champion, manifest, file)
        values = _asked(file, graph, manifest.inputs, manifest.output, hosts).score(holdout)
        return Answers(task=task, values=values, classes=tuple(manifest.classes)), None
    except (BadPackage, RetryLater, RunFailed, KeyError) as error:
        if file == REMOTE_FILE and isinstance(error, RunFailed):
            raise RunFailed(
                f"the champion, version {spec.champion.version}, cannot be compared with: {error}"
            ) from error
        return None, f"{type(error).__name__}: {error}"


def _asked(
    file: str, raw: bytes, inputs: Sequence[InputColumn], output: str, hosts: str
) -> onnx_graph.Asked | RemoteAsked:
    """Raises RunFailed for a remote model that does not answer."""
    return RemoteAsked(raw, inputs, output, hosts) if file == REMOTE_FILE else onnx_graph.Asked(raw, inputs, output)


def _same(learned: Learned, graph: bytes, table: Table) -> bytes:
    """`graph`, when it answers as the model that it was exported from. Raises RunFailed."""
    output = onnx_graph.OUTPUTS[learned.task]
    values = onnx_graph.Asked(graph, [column.declared() for column in table.columns], output).score(table)
    worst = largest_difference(table.labels, Answers(task=learned.task, values=values), learned.answers(table))
    if not worst <= LARGEST_DIFFERENCE:
        raise RunFailed(f"the refit's graph and model differ by {worst:.2g}, {LARGEST_DIFFERENCE:.0e} is allowed")
    return graph
