"""Comparisons of two versions that answered the same questions: on trial, and on watch after a promotion.

A comparison belongs to two versions and to trial or watch, and knows nothing of steps. What it says is a function of the loop's
settled events in their order: the same events give the same verdicts with the same ids.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import ChallengerJudged, TrialCheck, TrialFinding
from millstream.contracts.tasks import PROBABILITY, Task, Truth, row_loss
from millstream.contracts.times import to_datetime, to_rfc3339
from millstream_drift.domain.answer import cell_of
from millstream_drift.domain.comparison import MINIMUM, SURPRISES, Comparison, Newest, Pairs, Slice
from millstream_drift.domain.events import Cell, Other, Question
from millstream_drift.domain.guards import Answers, Bounds, Guards
from millstream_drift.domain.join import Asked
from millstream_drift.domain.spells import Spells

EVERY = 250
"""Pairs between two verdicts while the finding stays: trainer moves at a verdict, so a step lasts at most so many longer."""
COMPARISONS = 4
"""Of one loop: a trial or a watch, and those before it whose last labels still come. The longest silent goes first."""
LONGEST_VALUE = 100
"""Characters of a slice's value that tell it from another."""

_FINAL = (TrialFinding.WORSE, TrialFinding.UNFIT)


@dataclass(frozen=True, kw_only=True)
class TrialRules:
    """What the loop's file says about trials."""

    task: Task
    slices: tuple[str, ...]
    """`gate.slices`."""
    error_rate: float
    """Chance that a trial of two equally good models ends."""
    bounds: Bounds


class Kept(msgspec.Struct, array_like=True):
    """What a comparison counts that says nothing of the models where inputs are broken."""

    answers: Answers = msgspec.field(default_factory=Answers)
    losses: Comparison = msgspec.field(default_factory=Comparison)
    newest: Newest = msgspec.field(default_factory=Newest)


class Trial(msgspec.Struct, array_like=True):
    """One comparison and what was said of it."""

    version: str
    against: str
    watch: bool
    began: int
    """Stream time of its first question (microseconds)."""
    last: int = 0
    """Stream time of its last question or pair."""
    answered: int = 0
    """Questions that `version` answered for real."""
    guards: Guards = msgspec.field(default_factory=Guards)
    losses: Comparison = msgspec.field(default_factory=Comparison)
    newest: Newest = msgspec.field(default_factory=Newest)
    """On watch: its last pairs, for who answers may go wrong long after it did well."""
    finding: TrialFinding = TrialFinding.UNDECIDED
    fault: str = ""
    """Why it is worse or unfit, with the numbers of that moment: both are final."""
    said: TrialFinding = TrialFinding.UNDECIDED
    said_pairs: int = 0
    verdicts: int = 0
    """Published so far: the number is part of a verdict's id."""
    news: bool = False
    """Something came since the last one."""
    kept: Kept = msgspec.field(default_factory=Kept)
    """What it counted when the champion's last whole window of inputs was judged."""
    in_doubt: bool = False
    """The champion's newest window of inputs is broken, and not of the spell that it took."""
    took: int = 0
    """Start of the broken spell in which it began, whose inputs it takes as they are: trainer starts no run then by itself,
    so a person has looked, and what seems broken to the older model is the world now. Else none could ever be promoted. Of
    watches the older one's, until a window of the new champion that had begun by then is broken too."""

    @property
    def champion(self) -> str:
        """Whose windows say whether inputs are whole: the one who answers unless it is the other's turn."""
        return self.version if self.watch else self.against


class Trials:
    """All comparisons of one loop. Feed it questions and pairs in stream-time order; each call gives what follows at once."""

    def __init__(self, loop: str, rules: TrialRules, state: Sequence[Trial] = (), broken: Spells | None = None) -> None:
        """`broken`: when whose inputs were, as judging goes on to find."""
        self._loop = loop
        self._rules = rules
        self._broken = broken if broken is not None else Spells()
        self._trials = {(trial.version, trial.against, trial.watch): trial for trial in state}

    def state(self) -> list[Trial]:
        return list(self._trials.values())

    def is_awaiting(self, since: int) -> bool:
        """Whether a label of a question at or after `since` (microseconds) may make a pair."""
        return any(trial.last >= since for trial in self._trials.values())

    def ask(self, question: Question) -> list[ChallengerJudged]:
        """A question that two models were asked, heard for the first time."""
        other, version = question.other, question.version
        if other is None or version is None:
            return []
        is_newer, watch = _standing(other, question.fallback)
        newer, older = (other.version, version) if is_newer else (version, other.version)
        trial = self._trials.get((newer, older, watch)) or self._begin(newer, older, watch, question.time)
        trial.last, trial.news = max(trial.last, question.time), True
        trial.answered += not is_newer
        if other.failure:
            if is_newer:
                trial.guards.fail(other.failure, question.time)
            else:
                trial.guards.asked += 1
        else:
            task = self._rules.task
            mine = cell_of(task, question.output), question.ms
            theirs = cell_of(task, other.output), other.ms
            (new, new_ms), (old, old_ms) = (theirs, mine) if is_newer else (mine, theirs)
            trial.guards.answer(new_ms, old_ms)
            if not self._is_of_broken(trial, question.time):
                trial.guards.answers.add(new, old)
                trial.losses.meet(self._slices(question.slices))
        self._guard(trial)
        return self._say_if_due(trial, question.time)

    def pair(self, asked: Asked, truth: Truth, time: int) -> list[ChallengerJudged]:
        """A question found its label, both known at `time`."""
        other, version = asked.other, asked.version
        if other is None or version is None:
            return []
        is_newer, watch = _standing(other, "")
        newer, older = (other.version, version) if is_newer else (version, other.version)
        trial = self._trials.get((newer, older, watch))
        if trial is None:
            return []  # pushed out by newer ones
        if self._is_of_broken(trial, asked.time):
            trial.last = max(trial.last, time)
            return []
        task, slices = self._rules.task, self._slices(asked.slices)
        new, old = (other.output, asked.output) if is_newer else (asked.output, other.output)
        surprise = _is_surprise(task, old, truth)
        newer_loss, older_loss = row_loss(task, new, truth), row_loss(task, old, truth)
        trial.losses.add(newer_loss, older_loss, surprise=surprise, slices=slices)
        if trial.watch:
            trial.newest.add(newer_loss - older_loss, surprise)
        trial.last, trial.news = max(trial.last, time), True
        self._look(trial, slices)
        self._guard(trial)
        return self._say_if_due(trial, time)

    def turn(self, boundary: int) -> list[ChallengerJudged]:
        """A day of stream time ended: where anything came, its state is said."""
        return [self._say(trial, boundary) for trial in self._trials.values() if trial.news and not _is_silent(trial)]

    def judged(self, version: str) -> None:
        """A window of inputs of this version was judged, with all that was asked of it so far."""
        spell = self._broken.now(version)
        for trial in self._trials.values():
            if trial.champion != version:
                continue
            if trial.took and 0 < spell <= trial.began:
                trial.took = spell
            doubt = spell not in (0, trial.took)
            if not doubt:
                trial.kept = copy.deepcopy(Kept(trial.guards.answers, trial.losses, trial.newest))
            elif not trial.in_doubt:
                self._take_back(trial)
            trial.in_doubt = doubt

    def _is_of_broken(self, trial: Trial, asked: int) -> bool:
        return self._broken.hold(trial.champion, asked, besides=trial.took)

    def _take_back(self, trial: Trial) -> None:
        """What was counted since the last whole window was counted before anybody knew."""
        kept = copy.deepcopy(trial.kept)
        trial.guards.answers, trial.losses, trial.newest = kept.answers, kept.losses, kept.newest
        trial.said_pairs = min(trial.said_pairs, kept.losses.whole.differences.count)
        if trial.finding not in _FINAL:
            trial.finding = TrialFinding.UNDECIDED
            self._look(trial, ())

    def _begin(self, newer: str, older: str, watch: bool, time: int) -> Trial:
        trial = self._trials[newer, older, watch] = Trial(newer, older, watch, time, time)
        # Who is promoted in a spell may have no judged window of its own yet: its first one tells where the spell began for it.
        trial.took = self._broken.now(trial.champion) or self._broken.now(older)
        while len(self._trials) > COMPARISONS:
            rest = [place for place, one in self._trials.items() if one is not trial]
            del self._trials[min(rest, key=lambda place: (self._trials[place].last, place))]
        return trial

    def _slices(self, values: Sequence[Cell]) -> list[Slice]:
        """What is missing is a value too, written as nothing."""
        return [
            (column, str(value or "")[:LONGEST_VALUE])
            for column, value in zip(self._rules.slices, values, strict=False)
        ]

    def _guard(self, trial: Trial) -> None:
        """Whether it fails, is slow, or answers something else than it may."""
        bounds, excused = self._rules.bounds, self._may_differ(trial)
        if trial.finding in _FINAL or not trial.guards.is_broken(bounds, excused):
            return
        broken = [check for check in trial.guards.checks(bounds, excused) if not check.passed]
        trial.finding = TrialFinding.UNFIT
        trial.fault = "; ".join(f"{check.detail}; {check.value:.3g} > {check.bound:.3g}" for check in broken)

    def _may_differ(self, trial: Trial) -> bool:
        """Whether it may answer something else altogether: after a change of the world the cure does.

        Labels have the word, those of the trial also on watch. Before there are enough, the shadow waits for them, since
        only the older model's answers go out; who answers for real without them may not. What it is to answer to broken inputs
        nobody can say.
        """
        if trial.in_doubt:
            return True
        for one in (trial, self._trials.get((trial.version, trial.against, False))):
            if one is not None and one.losses.whole.is_enough:
                return one.losses.whole.differences.mean < 0
        return not trial.watch and not trial.answered

    def _look(self, trial: Trial, slices: Sequence[Slice]) -> None:
        """Judge the losses after a pair in `slices`: only their sequences have moved."""
        losses, rate = trial.losses, self._rules.error_rate
        if trial.finding in _FINAL or not losses.whole.is_enough:
            return
        low, high = losses.whole.differences.interval(self._rate(trial))
        trial.finding = TrialFinding.BETTER if high < 0 else TrialFinding.UNDECIDED
        if low > 0:
            trial.finding, trial.fault = TrialFinding.WORSE, self._numbers(trial)
            return
        newest = trial.newest.pairs
        if trial.watch and newest.is_enough:
            low, high = newest.differences.interval(trial.newest.rate(rate / 2))
            if low > 0:
                trial.finding = TrialFinding.WORSE
                trial.fault = (
                    f"worse lately: {newest.differences.mean:+.4f} ({low:+.4f} to {high:+.4f}) on the last "
                    f"{newest.differences.count} pairs; of all {self._numbers(trial)}"
                )
                return
        for one in slices:
            found = losses.slices.get(one)
            if found is None or not found.is_enough:
                continue
            check = _slice_check(one, found, losses.slice_rate(rate))
            if not check.passed:
                trial.finding, trial.fault = TrialFinding.WORSE, f"worse where {check.name}: {check.detail}"
                return

    def _rate(self, trial: Trial) -> float:
        """Error rate of the whole comparison's sequence. On watch the newest pairs have the other half."""
        return self._rules.error_rate / 2 if trial.watch else self._rules.error_rate

    def _say_if_due(self, trial: Trial, time: int) -> list[ChallengerJudged]:
        """Said at once when it became better, worse or unfit. `better` may come and go at its border: that it went is
        said with the next round number, so that no border is worth a verdict a label."""
        if _is_silent(trial):
            return []
        changed = trial.finding is not trial.said and trial.finding is not TrialFinding.UNDECIDED
        if changed or trial.losses.whole.differences.count - trial.said_pairs >= EVERY:
            return [self._say(trial, time)]
        return []

    def _say(self, trial: Trial, time: int) -> ChallengerJudged:
        losses, rate = trial.losses, self._rules.error_rate
        trial.said, trial.said_pairs, trial.news = trial.finding, losses.whole.differences.count, False
        trial.verdicts += 1
        low, high = losses.whole.differences.interval(self._rate(trial))
        kind = "watch" if trial.watch else "trial"
        began, number = to_rfc3339(trial.began), str(trial.verdicts)
        return ChallengerJudged(
            id=derived_id(self._loop, kind, trial.version, trial.against, began, number),
            loop=self._loop,
            version=trial.version,
            against=trial.against,
            watch=trial.watch,
            finding=trial.finding,
            reason=self._reason(trial),
            at=to_datetime(time),
            questions=trial.guards.answered,
            answered=trial.answered,
            pairs=losses.whole.differences.count,
            difference=losses.whole.differences.mean,
            low=low,
            high=high,
            loss=losses.loss.mean,
            error_rate=self._rate(trial),
            checks=trial.guards.checks(self._rules.bounds, self._may_differ(trial))
            + [
                _slice_check(one, found, losses.slice_rate(rate))
                for one, found in losses.slices.items()
                if found.is_enough
            ],
        )

    def _reason(self, trial: Trial) -> str:
        if trial.finding in _FINAL:
            return trial.fault
        reason, whole = self._numbers(trial), trial.losses.whole
        if not whole.is_enough:
            needed = f"{MINIMUM} pairs with {SURPRISES} wrong guesses of version {trial.against} are needed to decide"
            reason = f"{reason}, {whole.surprises} wrong guesses; {needed}" if whole.differences.count else needed
        left_out = trial.guards.answered - trial.guards.answers.count
        return (
            f"{reason}; without {left_out} questions that were asked while inputs were broken" if left_out else reason
        )

    def _numbers(self, trial: Trial) -> str:
        losses = trial.losses
        low, high = losses.whole.differences.interval(self._rate(trial))
        name = "squared error" if self._rules.task is Task.REGRESSION else "log loss"
        relative = f", {losses.whole.differences.mean / losses.loss.mean:+.1%}" if losses.loss.mean > 0 else ""
        return (
            f"{name} {losses.whole.differences.mean:+.4f} ({low:+.4f} to {high:+.4f}) beside {losses.loss.mean:.4f}{relative} "
            f"on {losses.whole.differences.count} pairs"
        )


def _is_silent(trial: Trial) -> bool:
    """Trainer moves at a verdict. While inputs are broken there is none, but for what takes the newer model out."""
    return trial.in_doubt and trial.finding not in _FINAL


def _standing(other: Other, fallback: str) -> tuple[bool, bool]:
    """(whether the other is the newer model, whether it is a watch).

    In a canary the other may be the champion; on watch it is, where the champion failed and its predecessor stepped in.
    """
    if other.role == "champion":
        return bool(fallback), bool(fallback)
    return other.role == "challenger", other.role == "previous"


def _is_surprise(task: Task, output: Mapping[str, float], truth: Truth) -> bool:
    """Whether another class was likelier than the true one."""
    if task is Task.REGRESSION:
        return True
    if task is Task.BINARY:
        return (output[PROBABILITY] > 0.5) != truth
    return cell_of(task, output) != truth


def _slice_check(one: Slice, found: Pairs, rate: float) -> TrialCheck:
    low, high = found.differences.interval(rate)
    mean, pairs = found.differences.mean, found.differences.count
    column, value = one
    return TrialCheck(
        name=f"{column} is {value}" if value else f"{column} is missing",
        passed=low <= 0,
        value=mean,
        bound=0.0,
        detail=f"loss {mean:+.4f} ({low:+.4f} to {high:+.4f}) on {pairs} pairs",
    )
