"""What drift sees in texts and embeddings: alarms where nothing changed, and how much has to change before it is seen.

Comments are made of phrases, embeddings of eight clusters in 384 dimensions. Each comparison is that of one window of 5,000
questions with the training's sample, by the classifier alone: no hysteresis, which would only lower both shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from millstream.contracts.content import EMBEDDING, SAMPLE, TEXT
from millstream_drift.adapters.classifier_child import compare
from millstream_drift.domain.content import Side

BOUND = 0.55
"""`drift.auc`, as it is unless a loop says otherwise."""
SEED = 2026
WIDTH, CLUSTERS = 384, 8
ABOUT = (
    "the room",
    "our breakfast",
    "the staff",
    "parking",
    "the pool",
    "the view",
    "check in",
    "the bed",
    "wifi",
    "the bar",
)
WAS = ("was lovely", "was fine", "could be better", "was too loud", "made our day", "was closed", "is worth the price")
MORE = ("thank you", "we will come again", "never again", "as always", "in the second week", "for a family of four", "")
NEWS = (
    "the refund never came",
    "my card was charged twice",
    "nobody answers about the refund",
    "the voucher is refused",
)
"""What guests write after the change."""
Make = Callable[[np.random.Generator, float], list[bytes]]


def comments(rng: np.random.Generator, changed: float) -> list[bytes]:
    """One window's sample; `changed` is the share of comments about something new."""
    found = []
    for new in rng.random(SAMPLE) < changed:
        said = [f"{rng.choice(ABOUT)} {rng.choice(WAS)}" for _ in range(rng.integers(1, 5))]
        said += [str(rng.choice(NEWS))] if new else []
        rng.shuffle(said)
        found.append(f"{', '.join(said)}. {rng.choice(MORE)}".encode())
    return found


def vectors(rng: np.random.Generator, degrees: float) -> list[bytes]:
    """One window's sample, turned by so many degrees in each of 64 planes."""
    centers, spread = _space()
    rows = centers[rng.integers(0, CLUSTERS, SAMPLE)] + rng.normal(size=(SAMPLE, WIDTH)) * spread
    turned, half = rows.copy(), np.deg2rad(degrees)
    a, b = np.arange(0, 128, 2), np.arange(1, 128, 2)
    turned[:, a] = np.cos(half) * rows[:, a] - np.sin(half) * rows[:, b]
    turned[:, b] = np.sin(half) * rows[:, a] + np.cos(half) * rows[:, b]
    return [row.astype("<f4").tobytes() for row in turned]


@cache
def _space() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centers of the clusters, and a spread that falls with the dimension, as embeddings have it."""
    rng = np.random.default_rng(SEED)
    return rng.normal(size=(CLUSTERS, WIDTH)) * 0.5, 1 / np.sqrt(1 + np.arange(WIDTH) / 20)


def _compared(kind: str, changed: float, window: int) -> tuple[float, float, float]:
    """AUC, lower end of its interval, and CPU seconds of one comparison."""
    make: Make = comments if kind == TEXT else vectors
    reference = make(np.random.default_rng([SEED, window, 0]), 0.0)
    now = make(np.random.default_rng([SEED, window, 1]), changed)
    began = time.process_time()
    found = compare(Side(name="content", type=kind, window=now, reference=reference))
    return found.auc, found.low, time.process_time() - began


def run(windows: int = 300, changed_windows: int = 20) -> dict[str, Any]:
    """Shares of windows that are called a drift; each window has a reference of its own."""
    found: dict[str, Any] = {"bound": BOUND, "rows_of_either_side": SAMPLE}
    with ProcessPoolExecutor(2) as pool:
        for kind, changes in ((TEXT, (0.1, 0.2, 0.4)), (EMBEDDING, (10.0, 20.0, 45.0))):
            same = _all(pool, kind, 0.0, windows)
            found[kind] = {
                "unchanged_windows": windows,
                "false_alarms": sum(low >= BOUND for _, low, _ in same),
                "unchanged_auc_largest": max(auc for auc, _, _ in same),
                "unchanged_low_above_half": sum(low > 0.5 for _, low, _ in same),
                "cpu_seconds": float(np.median([seconds for _, _, seconds in same])),
                "seen": {_what(kind, change): _seen(_all(pool, kind, change, changed_windows)) for change in changes},
            }
    return found


def _all(pool: ProcessPoolExecutor, kind: str, changed: float, windows: int) -> list[tuple[float, float, float]]:
    """`_compared` of each window, with a bar: a comparison takes seconds."""
    told = f"contents: {_what(kind, changed)}" if changed else f"contents: {kind}, nothing changed"
    each = pool.map(partial(_compared, kind, changed), range(windows))
    return list(track(each, told, total=windows, console=Console(stderr=True)))


def _what(kind: str, changed: float) -> str:
    return f"{changed:.0%} of comments new" if kind == TEXT else f"{changed:.0f} degrees"


def _seen(compared: list[tuple[float, float, float]]) -> dict[str, float]:
    return {
        "share": float(np.mean([low >= BOUND for _, low, _ in compared])),
        "auc": float(np.median([auc for auc, _, _ in compared])),
    }
