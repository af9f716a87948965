"""Scoring a table: what the table must have, and what its answers look like, column by column."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn, Manifest
from millstream.contracts.tasks import PROBABILITY, VALUE, Task
from millstream_serving.errors import BadTable

EVENT_TIMESTAMP = "event_timestamp"
"""As of when a row's features are looked up: the name that Feast has for it."""
VERSION = "version"
NULL_FEATURES = "null_features"
"""How many of the model's features were null: all of them where the entity is unknown."""

NUMBER, TEXT, TRUTH, TIME, OTHER = "number", "text", "truth", "time", "other"
"""Kinds of a table's columns."""
_FIT = {
    "number": (NUMBER, TRUTH),
    "category": (TEXT, NUMBER, TRUTH),
    "key": (TEXT, NUMBER, TRUTH),
    "time": (TIME,),
}
_WRITE = {
    "number": "int, float, decimal or bool",
    "category": "string, int, float or bool",
    "key": "string or int",
    "time": "timestamp; without a zone it is UTC",
}


def answer_columns(manifest: Manifest) -> list[str]:
    """What a row is answered with, in order: `probability`, `value`, or `probability_CLASS` for each class."""
    task = Task(manifest.task)
    if task is Task.MULTICLASS:
        return [f"{PROBABILITY}_{name}" for name in manifest.classes]
    return [VALUE if task is Task.REGRESSION else PROBABILITY]


def check(kinds: Mapping[str, str], inputs: Sequence[InputColumn], *, look_up: bool, keys: Collection[str]) -> None:
    """Whether a table of `kinds` (column → kind) can be scored. Raises BadTable with everything that is wrong.

    `look_up`: its features are read as of EVENT_TIMESTAMP by `keys`, else it has a column for each.
    """
    wanted = {column.name: column.type for column in inputs if column.source == "input" or not look_up}
    if look_up:
        wanted |= {key: "key" for key in keys if key not in wanted} | {EVENT_TIMESTAMP: "time"}
    faults = [
        f"column {name!r} is {_SAID[kinds[name]]}; write it as {_WRITE[kind]}"
        for name, kind in wanted.items()
        if name in kinds and kinds[name] not in _FIT[kind]
    ]
    missing = [name for name in wanted if name not in kinds]
    if missing:
        faults.append(f"no column {', '.join(map(repr, missing))}; it has {', '.join(kinds) or 'none'}")
        features = [column.name for column in inputs if column.source == "feature"]
        if look_up and set(missing) & {EVENT_TIMESTAMP, *keys} and all(name in kinds for name in features):
            faults.append("it has the model's features: --features given scores those")
        elif not look_up and set(features) <= set(missing):
            faults.append(f"--features lookup reads them, by the keys and {EVENT_TIMESTAMP}")
    if faults:
        raise BadTable("; ".join(faults))


def kept(columns: Sequence[str], manifest: Manifest, keys: Collection[str], answers: Collection[str]) -> list[str]:
    """The columns of a table that come out beside its answers: what the model does not read, and `keys`.

    Raises BadTable where one of them is called like an answer.
    """
    read = {column.name for column in manifest.inputs} - set(keys)
    found = [name for name in columns if name not in read]
    if double := [name for name in found if name in answers]:
        raise BadTable(f"column {double[0]!r} is called like one of the answers; rename it, or leave it out")
    return found


def honest(task: Task, values: NDArray[Any]) -> NDArray[np.bool_]:
    """For each row of a graph's output what `contracts.tasks.is_answer` says of it."""
    # NaN fails both comparisons.
    fit: Any = np.isfinite(values) if task is Task.REGRESSION else (values >= 0.0) & (values <= 1.0)
    rows: NDArray[np.bool_] = fit.reshape(len(fit), -1).all(axis=1)
    return rows


_SAID = {
    NUMBER: "a number",
    TEXT: "a text",
    TRUTH: "true or false",
    TIME: "a time",
    OTHER: "of a kind that no model reads",
}
