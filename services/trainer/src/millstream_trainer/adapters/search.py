"""Looks for better parameters with Optuna, in a small stated space around those of the file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream.contracts.times import SECOND
from millstream.project import Loop
from millstream.project.params import Params

if TYPE_CHECKING:
    from millstream_trainer.adapters.choice import Slices, Trial

Space = Callable[[Any], dict[str, Any]]

SPACES: dict[str, Space] = {
    "lightgbm": lambda trial: {
        "num_leaves": trial.suggest_int("num_leaves", 7, 127, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 20, 1000, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 100.0, log=True),
    },
    "xgboost": lambda trial: {
        "max_depth": trial.suggest_int("max_depth", 3, 10),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "min_child_weight": trial.suggest_float("min_child_weight", 1.0, 300.0, log=True),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-2, 100.0, log=True),
    },
    "linear": lambda trial: {"C": trial.suggest_float("C", 1e-4, 100.0, log=True)},
    "forest": lambda trial: {
        "max_depth": trial.suggest_int("max_depth", 4, 20),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 5, 500, log=True),
        "max_features": trial.suggest_float("max_features", 0.1, 1.0),
    },
    "torch": lambda trial: {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
    },
}
"""What matters most, as the libraries' own tuning guides name it; rounds come from an early stop, where one is asked for."""
EVERY = 10
"""Rounds between two looks of the pruner."""
FIRST = 4
"""Trials that are never pruned: a median of fewer is nobody's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a search came to; `trial` is the one it began with where nothing was better."""

    trial: Trial
    metrics: dict[str, float]
    notes: list[str]


def search(slices: Slices, since: int | None, around: Params, begun: Trial, loop: Loop) -> Found:
    """`around`: the parameters that the space varies; `begun`: how they did.

    The same slices and seed find the same, unless time ends it; `notes` then says so. Raises RunFailed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = loop.model.search
    assert asked is not None, "the loop asks for a search"
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=loop.train.seed, n_startup_trials=max(FIRST, asked.trials // 3)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST, n_warmup_steps=2 * EVERY),
    )
    limit = asked.timeout / SECOND
    ends = time.monotonic() + limit
    late = False
    best = begun

    def ask(trial: Any) -> float:
        nonlocal best, late
        params = around.model_copy(update=SPACES[loop.model.estimator](trial))

        def watch(step: int, loss: float) -> None:
            nonlocal late
            if time.monotonic() > ends:
                late = True
                raise optuna.TrialPruned("the search's time is over")
            if step % EVERY == 0:
                trial.report(loss, step)
                if trial.should_prune():
                    raise optuna.TrialPruned

        def after(fold: int, loss: float) -> None:
            watch((10_000 + fold) * EVERY, loss)  # after all rounds of the first fold

        found = slices.tried(since, params, watch=watch, after=after)
        if found.loss < best.loss:
            best = found
        return found.loss

    study.optimize(ask, n_trials=asked.trials, timeout=limit)
    states = [trial.state for trial in study.trials]
    pruned = states.count(optuna.trial.TrialState.PRUNED)
    late = late or len(states) < asked.trials
    notes = [
        f"search: {len(states)} of {asked.trials} trials, {pruned} pruned, loss {begun.loss:.5f} to {best.loss:.5f}"
    ]
    if late:
        notes.append(f"the search ended by its time limit of {limit:.0f} s: a repeat may find another model")
    metrics = {"search_trials": float(len(states)), "search_pruned": float(pruned), "search_ended_by_time": float(late)}
    return Found(trial=best, metrics=metrics, notes=notes)
