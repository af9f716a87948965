"""Avro: whether a reader's schema resolves what a writer's wrote (Avro 1.12, Schema Resolution)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from millstream.codecs.avro_schema import names_in
from millstream.contracts.json_text import pointer

Found = tuple[str, str, str]
Path = tuple[str, ...]

_PROMOTED: Mapping[str, tuple[str, ...]] = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
DEEPEST = 30


def unread(writer: Any, reader: Any) -> Iterator[Found]:
    """Why the parsed schema `reader` does not resolve `writer`."""
    yield from _Resolution(writer, reader).at((), writer, reader)


class _Resolution:
    def __init__(self, writer: Any, reader: Any) -> None:
        self._writers, self._readers = names_in(writer, {}), names_in(reader, {})

    def at(self, path: Path, w: Any, r: Any) -> Iterator[Found]:
        w, r = _of(self._writers, w), _of(self._readers, r)
        if len(path) > DEEPEST:
            return
        if isinstance(w, list):
            for branch in w:
                yield from self.at(path, branch, r)
            return
        if isinstance(r, list):
            if all(any(self.at(path, w, branch)) for branch in r):
                yield (
                    pointer(path),
                    f"{_kind(w)} is none of {', '.join(map(_kind, r))}",
                    f"keep {_kind(w)} in the union",
                )
            return
        yield from self._one(path, w, r)

    def _one(self, path: Path, w: Any, r: Any) -> Iterator[Found]:
        where, mine, theirs = pointer(path), _kind(w), _kind(r)
        if mine != theirs and theirs not in _PROMOTED.get(mine, ()):
            yield (
                where,
                f"written as {mine}, read as {theirs}",
                f"leave it {mine}, or give what is new a name of its own",
            )
            return
        if (was := _logical(w)) != (now := _logical(r)):
            said = f"logicalType {was or 'none'} on the writing side, {now or 'none'} on the reading"
            yield where, said, "leave logicalType as it was: the same number would mean another thing"
            return
        if mine != theirs or not isinstance(w, dict) or not isinstance(r, dict):
            return
        match mine:
            case "record" | "error":
                yield from self._record(path, w, r)
            case "enum":
                if (gone := [s for s in w["symbols"] if s not in r["symbols"]]) and "default" not in r:
                    yield (
                        where,
                        f"{', '.join(gone)} is no symbol on the reading side",
                        "keep it, or give the enum a default",
                    )
            case "fixed":
                if w["size"] != r["size"]:
                    yield where, f"{w['size']} bytes written, {r['size']} read", f"leave size at {w['size']}"
            case "array":
                yield from self.at((*path, "0"), w["items"], r["items"])
            case "map":
                yield from self.at((*path, "*"), w["values"], r["values"])

    def _record(self, path: Path, w: Mapping[str, Any], r: Mapping[str, Any]) -> Iterator[Found]:
        mine = {field["name"]: field for field in w["fields"]}
        for field in r["fields"]:
            names = (field["name"], *field.get("aliases", ()))
            there = next((mine[name] for name in names if name in mine), None)
            if there is not None:
                yield from self.at((*path, field["name"]), there["type"], field["type"])
            elif "default" not in field:
                said = "is read, is not written, and has no default"
                yield pointer((*path, field["name"])), said, f"give {field['name']} a default"


def _of(names: Mapping[str, Any], schema: Any) -> Any:
    if isinstance(schema, str):
        schema = names.get(schema, schema)
    if isinstance(schema, dict) and isinstance(schema["type"], dict | list):
        return schema["type"]
    return schema


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _logical(schema: Any) -> str | None:
    return schema.get("logicalType") if isinstance(schema, dict) else None
