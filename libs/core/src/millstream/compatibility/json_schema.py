"""JSON Schema: whether every event that one schema allows is allowed by another.

What cannot be told is told as such: schemas that are combined (anyOf, if, …) are compared word by word. A field that is new and
may be missing breaks nothing, although a schema without `additionalProperties: false` allowed it to be anything before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from millstream.contracts.json_text import pointer

Found = tuple[str, str, str]
"""JSON Pointer, what is wrong, what to write instead."""
Path = tuple[str, ...]

_ALL = frozenset({"array", "boolean", "number", "null", "object", "string"})
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")
_SAME = (
    "allOf",
    "anyOf",
    "contains",
    "contentEncoding",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "format",
    "if",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
)
"""Keywords that may be dropped or stay as they are; what another value of theirs allows cannot be told."""
DEEPEST = 30
"""Levels, as of a stream's schema; one that refers to itself ends here."""

_show = msgspec.json.Encoder(order="sorted").encode


def refusals(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> Iterator[Found]:
    """Why `reader` refuses some events that `writer` allows; nothing where it takes them all."""
    yield from _Walk(writer, reader).at((), writer, reader)


class _Walk:
    def __init__(self, writer: Mapping[str, Any], reader: Mapping[str, Any]) -> None:
        self._writer, self._reader = writer, reader

    def at(self, path: Path, w: Any, r: Any) -> Iterator[Found]:
        w, r = _resolved(self._writer, w), _resolved(self._reader, r)
        where = pointer(path)
        if len(path) > DEEPEST or r is True or r == {}:
            return
        if r is False:
            if w is not False:
                yield where, "is not allowed any more", "allow it, or let it stay optional and unused"
            return
        if not isinstance(w, dict):
            w = {}
        if not isinstance(r, dict):
            return
        if widened := sorted(_types(w) - _with_integers(_types(r))):
            said = f"was {_named(_types(w))}, is {_named(_types(r))}"
            yield where, said, f"allow {' and '.join(widened)} too, or give what is new a name of its own"
            return
        yield from self._values(where, w, r)
        yield from self._object(path, w, r)
        if "items" in r:
            yield from self.at((*path, "0"), w.get("items", {}), r["items"])
        for keyword in _SAME:
            if keyword in r and _plain(self._reader, r[keyword]) != _plain(self._writer, w.get(keyword)):
                was = f"was {_shown(w[keyword])}" if keyword in w else "is new"
                yield (
                    where,
                    f"{keyword} {was}; whether all values still fit cannot be told",
                    f"leave {keyword} as it was",
                )

    def _values(self, where: str, w: Mapping[str, Any], r: Mapping[str, Any]) -> Iterator[Found]:
        if (allowed := _listed(r)) is not None:
            before = _listed(w)
            if before is None:
                yield where, f"only {_shown(allowed)} now", "leave enum out, or give what is new a name of its own"
            elif gone := [value for value in before if value not in allowed]:
                yield where, f"{', '.join(map(_shown, gone))} is not allowed any more", "keep it in enum"
        for names, stricter, word in ((_LEAST, 1, "lower"), (_MOST, -1, "higher")):
            for name in names:
                if name not in r:
                    continue
                before = w.get(name)
                if not isinstance(before, int | float) or (r[name] - before) * stricter > 0:
                    was = "is new" if before is None else f"was {before}"
                    yield (
                        where,
                        f"{name}: {r[name]} {was}",
                        f"leave {name} {'out' if before is None else f'at {before} or {word}'}",
                    )

    def _object(self, path: Path, w: Mapping[str, Any], r: Mapping[str, Any]) -> Iterator[Found]:
        mine, theirs = w.get("properties", {}), r.get("properties", {})
        for name in r.get("required", ()):
            if name not in w.get("required", ()):
                said = "may be missing" if name in mine else "is not there"
                remedy = f"take {name} out of required"
                yield pointer((*path, name)), f"is required on one side, and {said} on the other", remedy
        rest, allowed = r.get("additionalProperties", True), w.get("additionalProperties", True)
        for name, said in mine.items():
            if name in theirs:
                yield from self.at((*path, name), said, theirs[name])
            elif rest is False:
                yield (
                    pointer((*path, name)),
                    "is not declared there, and no other fields are allowed",
                    f"keep {name} as optional",
                )
            else:
                yield from self.at((*path, name), said, rest)
        if rest is False and allowed is not False:
            yield pointer(path), "other fields were allowed, and are not any more", "leave additionalProperties out"
        elif isinstance(rest, dict) and allowed is not False:
            yield from self.at((*path, "*"), allowed if isinstance(allowed, dict) else {}, rest)


def _resolved(root: Mapping[str, Any], schema: Any) -> Any:
    for _ in range(DEEPEST):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        found: Any = root
        for step in str(schema["$ref"]).split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        beside = {name: said for name, said in schema.items() if name != "$ref"}
        if not isinstance(found, dict):
            return beside
        schema = found | beside
    return {}


def _plain(root: Mapping[str, Any], said: Any, depth: int = 0) -> Any:
    """`said` with its references followed: the same words may mean another thing in another schema."""
    if depth > DEEPEST:
        return None
    if isinstance(said, dict):
        found = _resolved(root, said)
        return {name: _plain(root, inner, depth + 1) for name, inner in found.items() if name != "description"}
    if isinstance(said, list):
        return [_plain(root, inner, depth + 1) for inner in said]
    return said


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(said)
    if (values := _listed(schema)) is not None:
        return frozenset(_type_of(value) for value in values)
    return _ALL


def _with_integers(types: frozenset[str]) -> frozenset[str]:
    return types | {"integer"} if "number" in types else types


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array"}
    return names.get(type(value), "object")


def _named(types: frozenset[str]) -> str:
    return "of any type" if types == _ALL else " or ".join(sorted(types))


def _listed(schema: Mapping[str, Any]) -> Sequence[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _shown(value: Any) -> str:
    return _show(value).decode()[:100]
