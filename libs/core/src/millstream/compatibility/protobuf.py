"""Protobuf: whether a reader's message understands what a writer's wrote. Numbers are the contract, names are how we call them.

https://protobuf.dev/programming-guides/proto3/#updating
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from millstream.contracts.json_text import pointer

Found = tuple[str, str, str]
Path = tuple[str, ...]

_ALIKE = (
    (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64),
    (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64),
    (FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64),
)
"""(narrow, wide): what is written narrow is read wide."""
DEEPEST = 30


def misread(writer: Descriptor, reader: Descriptor, needed: frozenset[str], path: Path = ()) -> Iterator[Found]:
    """Why `reader` misses or misreads what `writer` writes. `needed`: fields that no event of the reader's is without."""
    if len(path) > DEEPEST:
        return
    named = {field.name: field for field in writer.fields}
    numbered = {field.number: field for field in writer.fields}
    for field in reader.fields:
        here = (*path, field.name)
        there = named.get(field.name)
        if there is not None and there.number != field.number:
            said = f"has number {field.number} on the reading side, {there.number} on the writing"
            yield pointer(here), said, f"keep the number {there.number}"
            continue
        there = numbered.get(field.number)
        if there is None:
            if field.name in needed or field.is_required:
                yield (
                    pointer(here),
                    "is needed, and is not written",
                    "keep the field that the stream's key, id and time name",
                )
        elif there.name != field.name and {there.name, field.name} & needed:
            said = f"number {field.number} is {there.name} on the writing side"
            yield pointer(here), said, f"keep {there.name} where it was, and give {field.name} a number of its own"
        else:
            yield from _field(here, there, field)


def _field(path: Path, w: FieldDescriptor, r: FieldDescriptor) -> Iterator[Found]:
    where = pointer(path)
    if w.is_repeated != r.is_repeated:
        said = "is a list on one side only"
        yield where, said, "give what is new a name and a number of its own"
    elif w.type != r.type and (w.type, r.type) not in _ALIKE:
        mine, theirs = _called(w), _called(r)
        yield where, f"written as {mine}, read as {theirs}", f"leave it {mine}; give what is new a number of its own"
    elif w.enum_type is not None and r.enum_type is not None:
        known = {value.number for value in r.enum_type.values}
        if gone := [value.name for value in w.enum_type.values if value.number not in known]:
            yield where, f"{', '.join(gone)} has no value on the reading side", "keep it"
    elif w.message_type is not None and r.message_type is not None:
        if _special(w) != _special(r):
            yield where, f"written as {_called(w)}, read as {_called(r)}", f"leave it {_called(w)}"
        elif not _special(w):
            yield from misread(w.message_type, r.message_type, frozenset(), path)


_TYPES: Any = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_") and isinstance(value, int)
}


def _called(field: FieldDescriptor) -> str:
    return str(field.message_type.full_name if field.message_type is not None else _TYPES[field.type])


def _special(field: FieldDescriptor) -> str:
    name = str(field.message_type.full_name)
    return name if name.startswith("google.protobuf.") else ""
