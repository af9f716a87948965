"""How often two equally good models are told apart, looking at every label: no oftener than the stated rate.

Three challengers whose expected loss is exactly the champion's and that are yet other models: `noisy` errs as much, elsewhere;
`sure` is too sure of what the champion knows less of, so that the differences are skewed: many small gains, few large losses;
`rare` is that where one label in eighty is positive. And `noisy` once more with four slices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from models import Floats, expected_loss, logit, sigmoid, solved

from millstream.contracts.events import TrialFinding
from millstream.contracts.tasks import PROBABILITY, Task
from millstream_drift.domain.events import Other, Question
from millstream_drift.domain.guards import Bounds
from millstream_drift.domain.join import Asked
from millstream_drift.domain.trials import TrialRules, Trials

RUNS = 200
LABELS = 10_000
STATED = 0.05
CELLS = np.linspace(0.02, 0.6, 64)
"""Chances of a positive; a question has one of them, each as likely."""
RARE = np.geomspace(0.001, 0.05, 64)
SLICES = ("UA", "B6", "EV", "DL")


Design = Callable[[np.random.Generator, Floats], tuple[Floats, Floats]]
"""Chances → (champion's answers, challenger's answers)."""


def noisy(rng: np.random.Generator, chance: Floats) -> tuple[Floats, Floats]:
    """Both add noise of their own of one size."""
    return tuple(sigmoid(logit(chance) + rng.normal(0, 0.5, chance.size)) for _ in range(2))  # type: ignore[return-value]


def sure(cells: Floats, sharpness: float) -> Design:
    """The challenger is `sharpness` times too sure; the champion is drawn to the mean until it loses as much."""
    loss, mean = expected_loss(cells, sigmoid(sharpness * logit(cells))), cells.mean()
    drawn = solved(lambda share: expected_loss(cells, cells + share * (mean - cells)), loss, 0.0, 1.0)

    def answers(rng: np.random.Generator, chance: Floats) -> tuple[Floats, Floats]:
        return chance + drawn * (mean - chance), sigmoid(sharpness * logit(chance))

    return answers


DESIGNS = {"noisy": (CELLS, noisy), "sure": (CELLS, sure(CELLS, 1.3)), "rare": (RARE, sure(RARE, 1.1))}


def ends(name: str, seed: int, labels: int, slices: tuple[str, ...] = ()) -> set[TrialFinding]:
    """Findings of one run, looked at after every label."""
    rng = np.random.default_rng([seed, 20130601])
    cells, design = DESIGNS[name]
    chance = rng.choice(cells, labels)
    champion, challenger = design(rng, chance)
    truths = rng.random(labels) < chance
    values = rng.choice(slices, labels).tolist() if slices else [None] * labels
    rules = TrialRules(
        task=Task.BINARY,
        slices=("carrier",) if slices else (),
        error_rate=STATED,
        bounds=Bounds(failures=1.0, slower=1e9, psi=1e9),
    )
    trials = Trials("aa", rules)
    found = set()
    rows = zip(champion.tolist(), challenger.tolist(), truths.tolist(), values, strict=True)
    for n, (mine, theirs, truth, value) in enumerate(rows):
        output, other = {PROBABILITY: mine}, Other("2", "challenger", {PROBABILITY: theirs}, "", 0.0)
        said = trials.ask(Question(n, str(n), str(n), "1", output, (), slices=(value,), other=other))
        said += trials.pair(Asked(str(n), str(n), n, "1", output, n, (value,), other), truth, n)
        found |= {verdict.finding for verdict in said}
    return found - {TrialFinding.UNDECIDED}


def run(runs: int = RUNS, labels: int = LABELS) -> dict[str, Any]:
    """Runs of each design; `wrong` is the worst design's share of runs in which the models were told apart."""
    found: dict[str, Any] = {"runs": runs, "labels": labels, "stated_rate": STATED}
    for name in DESIGNS:
        plain = [ends(name, seed, labels) for seed in range(runs)]
        found[f"wrong_{name}"] = sum(map(bool, plain)) / runs
        found[f"ended_{name}"] = sum(TrialFinding.WORSE in one for one in plain) / runs
    sliced = [ends("noisy", seed, labels, SLICES) for seed in range(runs)]
    found["ended_with_slices"] = sum(TrialFinding.WORSE in one for one in sliced) / runs
    found["wrong"] = max(found[f"wrong_{name}"] for name in DESIGNS)
    return found


if __name__ == "__main__":
    print(run())
