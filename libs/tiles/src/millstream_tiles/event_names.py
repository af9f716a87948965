"""Which values may name an event or an entity, or be added up: those that every part of the way to a window can carry alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from millstream_tiles.definition import LARGEST, Function, View

LONGEST_NAME = 1024
"""Bytes of an id or a key, as ingest has it. Each family of tiles holds its own copy of a key, and the store one of each id
for days; a name of a megabyte is a document in the wrong field."""
LARGEST_INTEGER, LARGEST_NUMBER = 2**63 - 1, 2**53
"""What the lake's columns of integers and of numbers hold exactly: beyond, history would know an entity by another name."""

TAKE_ALL = frozenset({Function.COUNT, Function.COUNT_DISTINCT})
"""Functions of values of any type."""


@dataclass(frozen=True, kw_only=True)
class EventNames:
    """The fields of one stream that name something: its event id, and the join keys of the views that read it; and those whose
    numbers its views add up."""

    fields: Mapping[str, frozenset[str]]
    """Field → the JSON types that the stream's schema gives it. A null is no name, and allowed."""
    numbers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, views: Iterable[View], event_id: str | None, types_of: Callable[[str], frozenset[str]]) -> EventNames:
        """Those of the stream that `views` read."""
        views = list(views)
        fields = {key for view in views for key in view.keys} | ({event_id} if event_id else set())
        # What is only counted may be anything.
        numbers = {a.column for view in views for a in view.aggregates if a.function not in TAKE_ALL}
        return cls(fields={field: types_of(field) for field in sorted(fields)}, numbers=frozenset(numbers))

    @cached_property
    def numeric(self) -> bool:
        """Whether any may be a number: then every event has to be looked at, where else its bytes tell that it is fine."""
        return any(types & {"integer", "number"} for types in self.fields.values())

    def empty(self, events: Sequence[Mapping[str, Any]]) -> bool:
        """Whether any of `events` has an empty text where a name is due."""
        return any("" in [event.get(field) for event in events] for field in self.fields)

    def fault(self, event: Mapping[str, Any]) -> str | None:
        """Which field of `event` names nothing that can be kept, and what to write instead; None: all is well."""
        for field, types in self.fields.items():
            value = event.get(field)
            if isinstance(value, str):
                if not value:
                    return f"/{field}: is empty; write what it is, or null where the event has none"
                if len(value) * 4 > LONGEST_NAME and (size := len(value.encode())) > LONGEST_NAME:
                    return f"/{field}: has {size:,} bytes; a key or id has at most {LONGEST_NAME:,}"
            elif isinstance(value, int | float):
                largest = LARGEST_NUMBER if "number" in types else LARGEST_INTEGER
                if abs(value) > largest:
                    return f"/{field}: is a number beyond {largest:,}, which would be rounded; send it as text"
        return None

    def beyond(self, events: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        """Which of `events` have a number that no window adds up (`definition`: it would count as null, and nobody would know),
        by their places, and what to write instead."""
        found: dict[int, str] = {}
        for field in sorted(self.numbers):
            values = [event.get(field) for event in events]
            try:
                places = np.flatnonzero(np.abs(np.array(values, dtype=np.float64)) >= LARGEST).tolist()
            except (OverflowError, TypeError, ValueError):  # a number that no double can hold, or a text among them
                places = list(range(len(values)))
            for place in places:
                value = values[place]
                if isinstance(value, int | float) and abs(value) > LARGEST:
                    found[place] = (
                        f"/{field}: is beyond ±{LARGEST_NUMBER:,} (2^53), where doubles skip numbers, and a view adds it up; "
                        "send it in a larger unit, or null where it is not known"
                    )
        return found
