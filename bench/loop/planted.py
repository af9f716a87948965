"""How soon a planted challenger is out: questions where no label is needed, else labels, from the first question on.

The champion answers the chance with an error of its own. Each challenger is made from it with one fault: `worse_N%` loses
that much more log loss because its answers carry noise of their own, `shifted_2%` because they are all too high. Labels come
three hours after their questions, ten questions a minute. Beside that, what trainer's rollout with its defaults makes of the
same verdicts: how many questions each challenger answered for real until it was rejected, and how often it was promoted. Of
those that give no answer at all `replicas` says that, of real processes; it serves all kinds, for requests failed and lost.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from models import Floats, expected_loss, logit, sigmoid, solved

from millstream.contracts.events import ChallengerJudged, ModelRef, RolloutMoved, Step, TrialFinding
from millstream.contracts.tasks import PROBABILITY, Task
from millstream.contracts.times import DAY, HOUR, SECOND, from_datetime, to_datetime
from millstream_drift.domain.events import Label, Other, Question
from millstream_drift.domain.guards import Bounds
from millstream_drift.domain.loop_fold import Fact, LoopFold
from millstream_drift.domain.trials import TrialRules
from millstream_trainer.domain import rollout
from millstream_trainer.domain.rules import RolloutRules
from millstream_trainer.domain.state import LoopState

RUNS = 20
LABELS = 20_000
BEGAN = 1_370_044_800 * SECOND
EVERY = 6 * SECOND
LATER = 3 * HOUR
CARRIERS = ("UA", "B6", "EV", "DL")
BOUNDS = Bounds(failures=0.01, slower=5.0, psi=0.5)
STEPS = RolloutRules(shadow=1000, canary=(0.1, 0.5), step=500, longest=60 * DAY, watch=2 * DAY, tolerance=0.0)
Answers = Callable[[np.random.Generator, Floats, Floats, Any], Floats]
"""(chances, champion's answers, carriers) → challenger's answers."""


def chances(rng: np.random.Generator, count: int) -> Floats:
    return rng.beta(1.2, 4.0, count) * 0.9 + 0.02


def champion(rng: np.random.Generator, chance: Floats) -> Floats:
    return sigmoid(logit(chance) + rng.normal(0, 0.3, chance.size))


def _with_loss(make: Callable[[float, Floats, Floats], Floats], more: float) -> float:
    """The size of a fault that costs `more` of the champion's loss, on 200,000 questions."""
    rng = np.random.default_rng(1)
    chance = chances(rng, 200_000)
    answers, noise = champion(rng, chance), rng.normal(0, 1, chance.size)
    goal = (1 + more) * expected_loss(chance, answers)
    return solved(lambda size: expected_loss(chance, make(size, answers, noise)), goal, 0.0, 5.0)


def _noisy(size: float, answers: Floats, noise: Floats) -> Floats:
    return sigmoid(logit(answers) + size * noise)


def _shifted(size: float, answers: Floats, noise: Floats) -> Floats:
    return sigmoid(logit(answers) + size)


def worse(more: float) -> Answers:
    size = _with_loss(_noisy, more)
    return lambda rng, chance, own, carriers: _noisy(size, own, rng.normal(0, 1, own.size))


def shifted(more: float) -> Answers:
    size = _with_loss(_shifted, more)
    return lambda rng, chance, own, carriers: _shifted(size, own, own)


def worse_for_one(more: float) -> Answers:
    size = _with_loss(_noisy, more)

    def answers(rng: np.random.Generator, chance: Floats, own: Floats, carriers: Any) -> Floats:
        return np.where(
            carriers == "EV", _noisy(size, own, rng.normal(0, 1, own.size)), better(rng, chance, own, carriers)
        )

    return answers


def better(rng: np.random.Generator, chance: Floats, own: Floats, carriers: Any) -> Floats:
    return chance


def same(rng: np.random.Generator, chance: Floats, own: Floats, carriers: Any) -> Floats:
    return own


KINDS: dict[str, tuple[Answers, dict[str, Any]]] = {
    "raises": (same, {"failure": "raised"}),
    "nan": (same, {"failure": "not_finite"}),
    "late": (same, {"failure": "late"}),
    "fails_2%": (same, {"failure": "raised", "share": 0.02}),
    "slow_x10": (same, {"ms": 10.0}),
    "answers_something_else": (lambda rng, chance, own, carriers: 1 - own, {}),
    "worse_2%": (worse(0.02), {}),
    "shifted_2%": (shifted(0.02), {}),
    "worse_5%": (worse(0.05), {}),
    "worse_10%": (worse(0.10), {}),
    "worse_50%": (worse(0.50), {}),
    "worse_10%_for_one_of_four_better_for_the_rest": (worse_for_one(0.10), {}),
    "better": (better, {}),
    "the_same": (same, {}),
}


def judged(kind: str, seed: int, labels: int) -> Iterator[ChallengerJudged]:
    """The verdicts on one challenger, as they come."""
    answers, fault = KINDS[kind]
    rng = np.random.default_rng([seed, 2013])
    chance = chances(rng, labels)
    carriers = rng.choice(CARRIERS, labels)
    mine = champion(rng, chance)
    theirs = answers(rng, chance, mine, carriers)
    truths = rng.random(labels) < chance
    failing = rng.random(labels) < fault.get("share", 1.0)
    rules = TrialRules(task=Task.BINARY, slices=("carrier",), error_rate=0.05, bounds=BOUNDS)
    fold = LoopFold("planted", within=24 * HOUR, window=10**9, trials=rules)
    behind = LATER // EVERY
    for n in range(labels + behind):
        now = BEGAN + n * EVERY
        if n < labels:
            how = fault.get("failure", "") if failing[n] else ""
            said = {} if how else {PROBABILITY: float(theirs[n])}
            other = Other("2", "challenger", said, how, 0.2 * fault.get("ms", 1.0))
            own = {PROBABILITY: float(mine[n])}
            slices = (str(carriers[n]),)
            fold.hear(Question(now, f"q{n}", f"f{n}", "1", own, (), slices=slices, ms=0.2, other=other))
        if n >= behind:
            fold.hear(Label(now, f"l{n - behind}", f"f{n - behind}", bool(truths[n - behind])))
        if fold.is_due():
            for found in fold.settle(now):
                if isinstance(found, Fact) and isinstance(found.event, ChallengerJudged):
                    yield found.event


@dataclass
class Tried:
    """What becomes of one challenger."""

    end: ChallengerJudged | None = None
    """The verdict that decides on it: for `better` that it is, for all others that it has to go."""
    step: Step | None = None
    """Rejected, or champion; None: neither by then."""
    labels: int = 0
    """When that was."""
    answered: float = 0.0
    """Questions that it answered until then: its share of those that were asked."""


def tried(kind: str, seed: int, labels: int) -> Tried:
    wanted = (TrialFinding.BETTER,) if kind == "better" else (TrialFinding.WORSE, TrialFinding.UNFIT)
    found, last = Tried(), BEGAN
    state = _moved(LoopState(loop="planted"), "1")
    state = _moved(state, "2")
    for verdict in judged(kind, seed, labels):
        if found.end is None and verdict.finding in wanted:
            found.end = verdict
        if found.step is None and state.models is not None:
            now = from_datetime(verdict.at)
            found.answered += state.models.share * (now - last) / EVERY
            moved, last = rollout.judged(state, verdict, STEPS), now
            if moved is not None:
                state = _applied(state, moved)
                if moved.step in (Step.REJECTED, Step.CHAMPION):
                    found.step, found.labels = moved.step, verdict.pairs
        if found.end is not None and found.step is not None:
            break
    return found


def _moved(state: LoopState, version: str) -> LoopState:
    model = ModelRef(version=version, run=f"r{version}", uri="", sha256="", at=to_datetime(BEGAN))
    moved = rollout.entered(state, model, STEPS, at=BEGAN, reason="planted")
    assert moved is not None
    return _applied(state, moved)


def _applied(state: LoopState, moved: RolloutMoved) -> LoopState:
    assert moved.led_to is not None
    return state.apply(moved).apply(moved.led_to)


def run(runs: int = RUNS, labels: int = LABELS) -> dict[str, Any]:
    """Per kind how many were decided, with the questions and labels that both answered by then; the rollout beside."""
    numbers: dict[str, Any] = {"runs": runs, "labels": labels}
    for kind in KINDS:
        every = [tried(kind, seed, labels) for seed in range(runs)]
        ends = [one.end for one in every if one.end is not None]
        rejected = [one for one in every if one.step is Step.REJECTED]
        numbers[kind] = {
            "decided": len(ends),
            "median_questions": statistics.median(one.questions for one in ends) if ends else None,
            "median_labels": statistics.median(one.pairs for one in ends) if ends else None,
            "most_labels": max((one.pairs for one in ends), default=None),
            "hours": statistics.median((one.at.timestamp() * SECOND - BEGAN) / HOUR for one in ends) if ends else None,
            "rejected": len(rejected),
            "promoted": sum(one.step is Step.CHAMPION for one in every),
            "labels_until_rejected": statistics.median(one.labels for one in rejected) if rejected else None,
        }
        if KINDS[kind][1].get("share", 1.0) == 1.0 and "failure" in KINDS[kind][1]:
            continue
        numbers[kind] |= {
            "answered_by_challenger": statistics.median(one.answered for one in rejected) if rejected else None,
            "answered_by_challenger_most": max((one.answered for one in rejected), default=None),
        }
    return numbers


if __name__ == "__main__":
    for name, found in run().items():
        print(name, found)
