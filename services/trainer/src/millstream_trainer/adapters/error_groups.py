"""Where a model of numbers is more wrong than elsewhere: groups of the holdout's rows, by scikit-learn's regression tree.

Direct loss estimation, as NannyML documents its DLE, with a tree that is *honest* (Athey, Imbens: Recursive Partitioning for
Heterogeneous Causal Effects, PNAS 113(27), 2016, section 2.2): one half of the rows says where groups begin and end, the other
half how wrong the model is in them. So no group's loss was picked for being high, and its standard error means what it says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from millstream.contracts.package import Condition, ErrorGroup
from millstream_trainer.domain.table import Column, Table

ENOUGH = 1_000
"""Rows of a holdout: below that its groups are so few and so unsure that they say no more than its mean."""
FEWEST = 50
"""Rows of either half in a group: a mean of squared errors is far from normal with fewer."""
MOST = 32
"""Groups. With half as many an error that grows with an input is told too small at its end."""
CATEGORIES = 50
"""Of a column, the most frequent ones; all others are taken as nulls are."""
LARGEST = float(np.finfo(np.float32).max)
"""No number is above it: what is can only be null."""
ANSWER = ""

Floats = NDArray[np.float64]


def error_groups(holdout: Table, names: Sequence[str], answers: Floats, losses: Floats, seed: int) -> list[ErrorGroup]:
    """Groups by the inputs `names` and by the answer, `losses` being squared errors; none where rows are too few."""
    if len(losses) < ENOUGH or not losses.mean() > 0:
        return []
    from sklearn.tree import DecisionTreeRegressor

    halves = np.random.default_rng(seed).permutation(len(losses))
    shaping, telling = np.array_split(halves, 2)
    columns = [holdout.column(name) for name in names]
    # By their mean error categories lie in an order in which a tree needs one cut to part them (Breiman et al. 1984, 4.2).
    errors = np.sqrt(losses)
    ranks = [None if one.is_number else _ranked(one.values[shaping], errors[shaping]) for one in columns]
    cells = [_numbers(one, rank) for one, rank in zip(columns, ranks, strict=True)]
    matrix = np.column_stack([*cells, answers.astype(np.float32)]) if cells else answers.astype(np.float32)[:, None]
    tree = DecisionTreeRegressor(max_leaf_nodes=MOST, min_samples_leaf=FEWEST, random_state=seed)
    # Of errors, not of their squares: a single large one would have a group cut out for it.
    tree.fit(matrix[shaping], errors[shaping])
    leaves = tree.apply(matrix)
    found = []
    for leaf, where in _paths(tree.tree_, [*names, ANSWER], [*ranks, None]):
        own = losses[telling][leaves[telling] == leaf]
        if len(own) < 2:  # fifty rows of the one half, and none of the other
            return []
        share = float((leaves == leaf).mean())
        found.append(
            ErrorGroup(where=where, rows=len(own), share=share, loss=float(own.mean()), loss_std=float(own.std(ddof=1)))
        )
    together = sum(one.share * one.loss for one in found)
    if not together > 0:
        return []
    scale = float(losses.mean()) / together
    return [replace(one, loss=one.loss * scale, loss_std=one.loss_std * scale) for one in found]


def _ranked(values: NDArray[Any], errors: Floats) -> list[str]:
    """The known categories, the one with the smallest mean error first."""
    known = [name for name, _ in Counter(values[values != ""]).most_common(CATEGORIES)]
    return sorted(known, key=lambda name: (float(errors[values == name].mean()), name))


def _numbers(column: Column, rank: list[str] | None) -> NDArray[np.float32]:
    """As the tree reads it; NaN: null, or a category that is not known."""
    if rank is None:
        return np.asarray(column.values, dtype=np.float32)
    places = {name: float(place) for place, name in enumerate(rank)}
    return np.array([places.get(value, np.nan) for value in column.values], dtype=np.float32)


def _paths(tree: Any, names: Sequence[str], ranks: Sequence[list[str] | None]) -> Iterator[tuple[int, list[Condition]]]:
    """Each leaf, and what leads to it: one condition a column."""
    todo: list[tuple[int, dict[int, Condition]]] = [(0, {})]
    while todo:
        node, path = todo.pop()
        if tree.children_left[node] < 0:
            yield node, list(path.values())
            continue
        place, cut = int(tree.feature[node]), float(tree.threshold[node])
        rank = ranks[place]
        known = path.get(place) or Condition(column=names[place], categories=rank or [], others=True)
        nulls_left = bool(tree.missing_go_to_left[node])
        if rank is None:
            # An infinite cut parts what is null from what is not, and JSON has no infinity.
            left = known if math.isinf(cut) else replace(known, upto=cut)
            right = replace(known, above=min(cut, LARGEST))
        else:
            below = {name for code, name in enumerate(rank) if code <= cut}
            left = replace(known, categories=[one for one in known.categories if one in below])
            right = replace(known, categories=[one for one in known.categories if one not in below])
        left = replace(left, others=known.others and nulls_left)
        right = replace(right, others=known.others and not nulls_left)
        todo += [
            (int(tree.children_right[node]), path | {place: right}),
            (int(tree.children_left[node]), path | {place: left}),
        ]
