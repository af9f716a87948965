"""docs/loop.md and docs/stream.md: every key of the project files with its default and its reason, from the schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from millstream.project.duration import ZERO
from millstream.project.loop import Loop
from millstream.project.names import FIELD, NAME
from millstream.project.params import BUILT_IN, OwnParams
from millstream.project.schemas import schema_of
from millstream.project.stream import Stream

Schema = Mapping[str, Any]

_NOTE = """Generated from `millstream.project`, as is the JSON Schema that editors complete from: put
`# yaml-language-server: $schema=…/{name}.schema.json` into the file's first line. `millstream check PATH` says what is wrong
in a file, where, and what to write instead. A key without a default may be left out where **required** does not stand."""
_LOOP = """
Only `loop`, `predict` and `label` have to be written. To copy from: the loops of the
[flights](../examples/flights/loops/flight-delay.yaml), the [bikes](../examples/bikes/loops/bike-rides.yaml) and the
[machines](../examples/machines/loops/machine-state.yaml). Durations are stream time where nothing else is said."""
_STREAM = "\nTo copy from: [the flights' streams](../examples/flights/streams)."
_TITLES = {"number": "number", "integer": "whole number"}


def project_pages() -> dict[str, str]:
    """Text of each page of docs/ about a project file, by its name."""
    return {
        "loop.md": _page("The loop file", "loop", schema_of(Loop), _LOOP),
        "stream.md": _page("The stream file", "stream", schema_of(Stream), _STREAM),
    }


def _page(title: str, name: str, schema: Schema, more: str) -> str:
    lines = [f"# {title}", "", _NOTE.format(name=name), more, "", *_keys("", schema, schema.get("$defs", {}))]
    return "\n".join(lines).rstrip() + "\n"


def _keys(path: str, schema: Schema, parts: Mapping[str, Schema]) -> Iterator[str]:
    """The table of one mapping's keys, then those of the mappings in it."""
    yield "| key | what may stand there | default | |"
    yield "| --- | --- | --- | --- |"
    inner: list[tuple[str, Schema]] = []
    for key, said in schema["properties"].items():
        where = f"{path}.{key}".lstrip(".")
        part = _mapping_in(said, parts)
        why = said.get("description") or (part or {}).get("description", "")
        if part is not None:
            inner.append((where, part))
        what = (
            f"keys, [below](#{_anchor(where)})" if part is not None or where == "model.params" else _what(said, parts)
        )
        default = "**required**" if key in schema.get("required", []) else "" if part else _default(said.get("default"))
        yield f"| `{key}` | {_cell(what)} | {_cell(default)} | {_cell(why)} |"
    yield ""
    for where, part in inner:
        yield from (f"{'#' * (where.count('.') + 2)} `{where}`", "", " ".join(part["description"].split()), "")
        yield from _keys(where, part, parts)
        if where == "model":
            yield from _params(parts)


def _params(parts: Mapping[str, Schema]) -> Iterator[str]:
    """Each estimator has parameters of its own."""
    yield from ("### `model.params`", "", "By the estimator.", "")
    for estimator, model in BUILT_IN.items():
        part = parts[model.__name__]
        yield from (f"#### `{estimator}`", "", " ".join(part["description"].split()), "", *_keys("", part, parts))
    part = parts[OwnParams.__name__]
    yield from ("#### Of your own", "", " ".join(part["description"].split()), "", *_keys("model.params", part, parts))


def _mapping_in(said: Schema, parts: Mapping[str, Schema]) -> Schema | None:
    """The one mapping that may stand there, if it is one."""
    options = [one for one in said.get("anyOf", [said]) if one.get("type") != "null"]
    found = parts.get(options[0].get("$ref", "").rpartition("/")[2]) if len(options) == 1 else None
    return found if found is not None and "properties" in found else None


def _what(said: Schema, parts: Mapping[str, Schema]) -> str:
    """What may stand there, in words."""
    if "$ref" in said:
        part = parts[said["$ref"].rpartition("/")[2]]
        return _what(part, parts) if "enum" in part else "keys as in [`model.params`](#modelparams)"
    if "anyOf" in said:
        options = (_what(one, parts) for one in said["anyOf"] if one.get("type") != "null")
        return " or ".join(dict.fromkeys(options))
    if "const" in said or "enum" in said:
        return ", ".join(f"`{one}`" for one in said.get("enum", [said.get("const")]))
    kind = said.get("type")
    if kind == "array":
        return f"list: {_what(said['items'], parts)}"
    if kind == "boolean":
        return "`true`, `false`"
    if kind in _TITLES:
        return _TITLES[kind] + _bounds(said)
    if kind == "object":
        return "keys"
    examples = ", ".join(f"`{one}`" for one in said.get("examples", []))
    name = _kind(said.get("pattern", "")) + (" above `0s`" if said.get("not") == ZERO else "")
    return f"{name}, like {examples}" if examples else name


def _kind(pattern: str) -> str:
    return {NAME: "name", FIELD: "field"}.get(pattern, "duration" if "[0-9]+d" in pattern else "text")


def _bounds(said: Schema) -> str:
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {said[key]:,.15g}" for key, word in bounds.items() if key in said)


def _default(value: object) -> str:
    """As a file would write it; nothing for null, an empty list and an empty text."""
    if value in (None, [], "") or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return heading.replace(".", "")
