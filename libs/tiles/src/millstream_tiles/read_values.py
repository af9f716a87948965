"""From the replies to a read to window values: many rows by columns, a few in plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.few_windows import ROWS, TILES, Tile, few_values
from millstream_tiles.held import NOTHING, Course, Gone, all_held, gone_of, without
from millstream_tiles.layout import Ints
from millstream_tiles.read_plan import Family, Plan, Question, Shape
from millstream_tiles.windows import Coarse, Values, window_values

SIZE = Struct("<I")
"""How many tiles one entity has."""

_Part = tuple[Family, bytes, bytes]
"""A family, how many tiles each of its entities has (<u4), and all of them, one after another (<f8)."""
_Fetched = Mapping[tuple[int, int], Sequence[_Part]]
"""(question, shape by identity) -> its part of each shard."""


def values_of(plan: Plan, as_of: int | Ints, replies: Sequence[list[bytes]]) -> tuple[list[Values], list[Gone]]:
    """For each question the values of its view, and which of them are null because the store does not hold them any more.

    `replies` are those to the plan's commands, one a shard.
    """
    courses = plan.courses(replies)
    fetched = _fetched(plan, replies)
    values = _few(plan, fetched, as_of) if _is_little(plan, fetched) else _many(plan, fetched, as_of)
    whole = [
        found if len(question.shapes) == 1 else {a.name: found[a.name] for a in question.view.aggregates}
        for question, found in zip(plan.questions, values, strict=True)
    ]
    gone = [_gone(question, as_of, courses.get(question.shapes[0].stream, NOTHING)) for question in plan.questions]
    return [without(found, lost) if lost else found for found, lost in zip(whole, gone, strict=True)], gone


def _gone(question: Question, as_of: int | Ints, course: Course) -> Gone:
    """A row without a key has windows of nothing at any time: they are held."""
    if all_held(question.view, as_of, course):
        return {}
    times = np.broadcast_to(np.asarray(as_of, dtype=np.int64), len(question.rows))
    keyed = np.array(question.rows, dtype=np.int64) >= 0
    gone: Gone = {}
    for shape in question.shapes:
        gone |= gone_of(shape.tiling, times, keyed, course)
    return gone


def _fetched(plan: Plan, replies: Sequence[Sequence[bytes]]) -> _Fetched:
    fetched: dict[tuple[int, int], list[_Part]] = {}
    for families, reply in zip(plan.shards, replies, strict=True):
        blobs = iter(reply)
        for family in families:
            fetched.setdefault((family.question, id(family.shape)), []).append((family, next(blobs), next(blobs)))
    return fetched


def _is_little(plan: Plan, fetched: _Fetched) -> bool:
    for question in plan.questions:
        if len(question.rows) > ROWS or any([shape.steps is None for shape in question.shapes]):
            return False
    return sum([len(rows) // f.shape.row.size for parts in fetched.values() for f, _, rows in parts]) <= TILES


def _few(plan: Plan, fetched: _Fetched, as_of: int | Ints) -> list[Values]:
    """All values are made one array, whose slices are the answers: an array takes longer to make than a value."""
    flat: list[float] = []
    for number, question in enumerate(plan.questions):
        rows = len(question.rows)
        times = [as_of] * rows if isinstance(as_of, int) else np.broadcast_to(as_of, rows).tolist()
        for shape in question.shapes:
            tiles = _tiles(shape, fetched.get((number, id(shape)), ()))
            for entity, time in zip(question.rows, times, strict=True):
                flat += few_values(shape.steps or (), tiles.get(entity, ()), time)
    values, answers, first = np.array(flat, dtype=np.float64), [], 0
    for question in plan.questions:
        answer: Values = {}
        for shape in question.shapes:
            step = len(shape.names)
            end = first + step * len(question.rows)
            for i, name in enumerate(shape.names, first):
                answer[name] = values[i:end:step]
            for name in shape.counts:
                answer[name] = answer[name].astype(np.int64)
            first = end
        answers.append(answer)
    return answers


def _tiles(shape: Shape, parts: Sequence[_Part]) -> dict[int, list[Tile]]:
    """Entity -> its tiles."""
    tiles: dict[int, list[Tile]] = {}
    for family, sizes, rows in parts:
        flat: list[Tile] = [*shape.row.iter_unpack(rows)]
        first = 0
        for entity, (size,) in zip(family.numbers, SIZE.iter_unpack(sizes), strict=True):
            tiles[entity] = flat[first : first + size]
            first += size
    return tiles


def _many(plan: Plan, fetched: _Fetched, as_of: int | Ints) -> list[Values]:
    """Views that aggregate alike (and they mostly do) are computed as one."""
    alike: dict[int, list[tuple[int, Shape]]] = {}
    for number, question in enumerate(plan.questions):
        for shape in question.shapes:
            alike.setdefault(shape.alike, []).append((number, shape))
    values: list[Values] = [{} for _ in plan.questions]
    for members in alike.values():
        shape = members[0][1]
        rows, counts, entity_of = _held(plan, fetched, members)
        coarse = None
        if shape.coarse is not None:
            longer = [(member, one.coarse) for member, one in members if one.coarse is not None]
            long_rows, long_counts, _ = _held(plan, fetched, longer)
            coarse = Coarse(many=shape.coarse.tiling.layout.coarse, rows=long_rows, counts=long_counts)
        asked = [len(plan.questions[member].rows) for member, _ in members]
        times = _joined([np.broadcast_to(np.asarray(as_of, dtype=np.int64), count) for count in asked])
        tiling = shape.tiling
        results = window_values(tiling.aggregates, tiling.layout, rows, counts, entity_of, times, coarse)
        first = 0
        for member, shape in members:
            end = first + len(plan.questions[member].rows)
            values[member] |= {n: r[first:end] for n, r in zip(shape.names, results, strict=True)}
            first = end
    return values


def _held(
    plan: Plan, fetched: _Fetched, members: Sequence[tuple[int, Shape]]
) -> tuple[NDArray[np.float64], Ints, Ints]:
    """The rows of all members, how many each entity has, and which entity each row of the questions asks for."""
    width = members[0][1].tiling.layout.width
    rows, counts, entity_of = [np.empty((0, width))], [], []
    entities = 0
    for member, shape in members:
        question = plan.questions[member]
        asked = np.array(question.rows, dtype=np.int64)
        parts = fetched.get((member, id(shape)), ())
        for _, sizes, packed in parts:
            rows.append(np.frombuffer(packed, dtype="<f8").reshape(-1, width))
            counts.append(np.frombuffer(sizes, dtype="<u4").astype(np.int64))
        places = _places(question, parts)
        entity_of.append(np.where(asked < 0, -1, places[asked] + entities))
        entities += len(question.entities)
    return np.concatenate(rows), _joined(counts), _joined(entity_of)


def _places(question: Question, parts: Sequence[_Part]) -> Ints:
    """Where each entity of the question stands, since they come in the order of their shards (one more for "none")."""
    places = np.zeros(len(question.entities) + 1, dtype=np.int64)
    numbers = _joined([np.array(family.numbers, dtype=np.int64) for family, _, _ in parts])
    places[numbers] = np.arange(len(numbers))
    return places


def _joined(arrays: list[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
