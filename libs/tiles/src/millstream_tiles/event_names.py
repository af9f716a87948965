"""Which values may name an event or an entity: those that every part of the way to a window can carry alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

LONGEST_NAME = 1024
"""Bytes of an id or a key, as ingest has it. Each family of tiles holds its own copy of a key, and the store one of each id
for days; a name of a megabyte is a document in the wrong field."""
LARGEST_INTEGER, LARGEST_NUMBER = 2**63 - 1, 2**53
"""What the lake's columns of integers and of numbers hold exactly: beyond, history would know an entity by another name."""


@dataclass(frozen=True, kw_only=True)
class EventNames:
    """The fields of one stream that name something: its event id, and the join keys of the views that read it."""

    fields: Mapping[str, frozenset[str]]
    """Field → the JSON types that the stream's schema gives it. A null is no name, and allowed."""

    @cached_property
    def numeric(self) -> bool:
        """Whether any may be a number: then every event has to be looked at, where else its bytes tell that it is fine."""
        return any(types & {"integer", "number"} for types in self.fields.values())

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
