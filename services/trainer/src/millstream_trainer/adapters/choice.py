"""Which history and which settings a run learns with, chosen on rows before the holdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.times import from_datetime
from millstream.project import Loop
from millstream.project.history import SINCE_CHANGE, span_to_text
from millstream.project.params import Params, growing, regrown
from millstream_trainer.adapters.estimators import Start, Watch
from millstream_trainer.adapters.learning import Learned, Learner, wants_start
from millstream_trainer.adapters.warm_start import NoStart, cold, note, refusal
from millstream_trainer.domain.candidates import Candidate, Fold, candidates, folds, has_earned
from millstream_trainer.domain.correction import Correction
from millstream_trainer.domain.gate import FEWEST_ROWS
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.table import Table
from millstream_trainer.errors import RunFailed


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """How a candidate did on the validation slices."""

    params: Params
    """With as many rounds as an early stop left, and no early stop: how the model is fitted in the end."""
    losses: NDArray[np.float64]
    """Of every row of the slices, in the same order for all."""
    newest: Learned
    """Fitted before the newest slice."""

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What a run learns with."""

    candidate: Candidate
    params: Params
    start: Start | None = None
    """Where a fit goes on from, if `params` ask for that."""
    calibration: Correction | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """`validation_loss_<candidate>` of all that competed, `validation_rows`, and what a search says."""
    notes: tuple[str, ...] = ()


class Slices:
    """Fits a candidate before each validation slice and asks it there."""

    def __init__(self, learner: Learner, found: Sequence[Fold]) -> None:
        self._learner = learner
        self._folds = found
        self.start: Start | None = None
        self.newest = found[0].check
        self.first = int(found[-1].check.known_at[0])
        """When the oldest row that anything is judged on was asked, microseconds."""
        self.rows = sum(len(fold.check) for fold in found)

    def tried(
        self,
        since: int | None,
        params: Params,
        *,
        watch: Watch | None = None,
        after: Callable[[int, float], None] = lambda fold, loss: None,
    ) -> Trial:
        """`watch` hears the newest slice's fit, `after` the mean loss so far; both may raise to end it. Raises RunFailed."""
        losses: list[Any] = []
        kept: list[int] = []
        newest: Learned | None = None
        for number, fold in enumerate(self._folds):
            rows = fold.learn.asked_from(since)
            if len(rows) < FEWEST_ROWS:
                raise RunFailed(f"{len(rows)} rows before a validation slice, {FEWEST_ROWS} are needed")
            learned = self._learner.learn(
                rows, params, against=fold.check, watch=watch if number == 0 else None, start=self.start
            )
            newest = newest or learned
            kept.append(learned.fitted.rounds or 0)
            losses.append(learned.answers(fold.check).losses(fold.check.labels))
            after(number, float(np.concatenate(losses).mean()))
        assert newest is not None, "train.folds is 1 at least"
        return Trial(params=_settled(params, kept, self.start), losses=np.concatenate(losses), newest=newest)


def choose(spec: RunSpec, loop: Loop, learner: Learner, learn: Table, start: Start | NoStart | None = None) -> Choice:
    """`learn` are all rows before the holdout, `start` where warm starts begin, or why not; None: nobody asks for one.

    Fits nothing where there is nothing to choose. Raises RunFailed.
    """
    settings: Sequence[Params] = loop.model.tried()
    competing = candidates(_histories(spec, loop), len(settings), int(learn.known_at[0]))
    model = loop.model
    slices = _slices(spec, loop, learner, learn) if len(competing) > 1 or model.chooses else None
    judged_from = slices.first if slices is not None else from_datetime(spec.at) - loop.train.holdout
    settings, notes = _started(settings, start, learner, judged_from)
    start = start if isinstance(start, Start) else None
    if slices is None:
        params = settings[0]
        notes += [note(start, params)] if start is not None and wants_start(params) else []
        return Choice(candidate=competing[0], params=params, start=start, notes=tuple(notes))
    slices.start = start
    # A warm start that cannot be is the twin of a setting that asks for none.
    told_apart = [params if wants_start(params) else cold(params) for params in settings]
    competing = [one for one in competing if told_apart.index(told_apart[one.setting]) == one.setting]
    metrics = {"validation_rows": float(slices.rows)}
    best: tuple[Candidate, Trial] | None = None
    for candidate in competing:
        try:
            trial = slices.tried(candidate.since, settings[candidate.setting])
        except RunFailed as error:
            notes.append(f"{candidate.name} did not compete: {error}")
            continue
        metrics[f"validation_loss_{candidate.name}"] = trial.loss
        if best is None or _is_better(candidate, trial, *best):
            best = candidate, trial
    if best is None:
        raise RunFailed(f"nothing to compare: {'; '.join(notes)}")
    candidate, trial = best
    others = len(metrics) - 2
    if others:
        notes.append(
            f"{candidate.name} won on {slices.rows} validation rows against {others} other{'s' * (others > 1)}"
        )
    if model.search is not None:
        from millstream_trainer.adapters.search import search

        found = search(slices, candidate.since, settings[candidate.setting], trial, loop)
        trial, notes = found.trial, [*notes, *found.notes]
        metrics |= {**found.metrics, "validation_loss_search": trial.loss}
    if start is not None and wants_start(trial.params):
        notes.append(note(start, trial.params))
    calibration = None
    if model.calibration != "none":
        newest = slices.newest
        calibration = learner.calibration(model.calibration, trial.newest, newest)
        notes.append(f"{model.calibration} calibration fitted on {len(newest)} validation rows")
    return Choice(
        candidate=candidate,
        params=trial.params,
        start=start,
        calibration=calibration,
        metrics=metrics,
        notes=tuple(notes),
    )


def _started(
    settings: Sequence[Params], start: Start | NoStart | None, learner: Learner, judged_from: int
) -> tuple[list[Params], list[str]]:
    """The settings, those that cannot go on from the champion from scratch; and why."""
    found, notes = [], []
    for params in settings:
        if wants_start(params) and start is not None:
            refused = refusal(start, params, learner, judged_from) if isinstance(start, Start) else str(start)
            if refused is not None:
                notes.append(f"from scratch, not a warm start: {refused}")
                params = cold(params)
        found.append(params)
    return found, list(dict.fromkeys(notes))


def _is_better(candidate: Candidate, trial: Trial, best: Candidate, best_trial: Trial) -> bool:
    """Settings by their loss, histories where they earn it; of equals the first that the file names stays."""
    return (
        trial.loss < best_trial.loss if candidate.since == best.since else has_earned(trial.losses, best_trial.losses)
    )


def _slices(spec: RunSpec, loop: Loop, learner: Learner, learn: Table) -> Slices:
    length = loop.train.holdout
    spells = [(from_datetime(start), from_datetime(end)) for start, end in spec.broken]
    found = folds(learn, from_datetime(spec.at) - length, length, loop.train.folds, spells)
    for fold in found:
        if min(len(fold.learn), len(fold.check)) < FEWEST_ROWS:
            raise RunFailed(
                f"a validation slice has {len(fold.check)} rows and {len(fold.learn)} before it; each needs {FEWEST_ROWS}: "
                "wait for more, or write a shorter train.holdout or fewer train.folds"
            )
    return Slices(learner, found)


def _histories(spec: RunSpec, loop: Loop) -> list[tuple[str, int | None]]:
    """Name and start of each; `since-change` is left out where nobody noticed one."""
    at = from_datetime(spec.at)
    found: list[tuple[str, int | None]] = []
    for span in loop.train.history:
        name = span_to_text(span)
        if isinstance(span, int):
            found.append((name, at - span))
        elif span != SINCE_CHANGE:
            found.append((name, None))
        elif spec.changed_at is not None:
            found.append((name, from_datetime(spec.changed_at)))
    return found or [("all", None)]


def _settled(params: Params, kept: Sequence[int], start: Start | None) -> Params:
    """The parameters that the final fit takes: it has no slice to stop by, so the slices say how many rounds it is."""
    growth = growing(params)
    if growth is None or not growth.early_stopping:
        return params
    warm = growth.warm_start and start is not None
    before = start.rounds if warm and start is not None else 0
    rounds = max(1, round(sum(kept) / len(kept)) - before)
    return regrown(params, growth.settled(rounds, warm=warm))
