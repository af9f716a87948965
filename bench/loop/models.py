"""Worlds with a known truth for the benches of trials: chances, models that answer them, labels drawn from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def logit(p: Floats) -> Floats:
    return np.log(p / (1 - p))


def expected_loss(chance: Floats, answer: Floats) -> float:
    """Mean log loss over `chance`, each equally likely: exact, no label is drawn."""
    return float(np.mean(-chance * np.log(answer) - (1 - chance) * np.log1p(-answer)))


def solved(f: Callable[[float], float], goal: float, low: float, high: float) -> float:
    """Where the rising `f` reaches `goal`, by halving."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) < goal else (low, middle)
    return (low + high) / 2
