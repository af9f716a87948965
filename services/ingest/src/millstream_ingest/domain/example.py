"""An event that fits a JSON Schema, for the docs: what a person would try first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOMENT = "2013-01-31T09:30:00Z"
_TEXTS: Mapping[str, str] = {
    "date-time": MOMENT,
    "date": "2013-01-31",
    "time": "09:30:00Z",
    "duration": "PT1H",
    "email": "ada@example.org",
    "idn-email": "ada@example.org",
    "hostname": "example.org",
    "idn-hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uri-reference": "/",
    "uri-template": "/{id}",
    "iri": "https://example.org/",
    "iri-reference": "/",
    "uuid": "6f0c2f2e-3d0f-4a5c-9f0e-0c6a8f1f2b3c",
    "json-pointer": "/a",
    "relative-json-pointer": "0",
    "regex": "a",
}
DEEPEST = 30
"""Levels, as of a stream's schema."""
DEEPEST_OPTIONAL = 6
"""Levels down to which an example has what it need not have."""


def example_of(schema: Mapping[str, Any]) -> Any:
    """An event of `schema`. One whose rules it cannot follow (a pattern, a combination) has to say its own `examples`."""
    return _value(schema, schema, "", 0)


def _value(root: Mapping[str, Any], schema: Any, name: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        found: Any = root
        for step in reference.split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return _value(root, found, name, depth + 1)
    for said in (schema.get("examples"), schema.get("enum")):
        if isinstance(said, list) and said:
            return said[0]
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(some := schema.get(keyword), list) and some and "type" not in schema:
            return _value(root, some[0], name, depth + 1)
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = next((one for one in kinds if one != "null"), "null") if isinstance(kinds, list) else kinds
    match kind:
        case "object":
            return _object(root, schema, depth)
        case "array":
            length = max(int(schema.get("minItems", 1)), 1)
            return [_value(root, schema.get("items", {"type": "string"}), name, depth + 1)] * min(length, 10)
        case "integer" | "number":
            return _number(schema, kind)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _text(schema, name)


def _object(root: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    # A definition that names itself three times would make millions of values at the deepest level.
    names = properties if depth <= DEEPEST_OPTIONAL else schema.get("required", ())
    return {
        name: _value(root, said, name, depth + 1)
        for name, said in properties.items()
        if said is not False and name in names
    }


def _number(schema: Mapping[str, Any], kind: str) -> float:
    step = schema.get("multipleOf", 1 if kind == "integer" else 0.5)
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    least = low if low is not None else above + step if above is not None else None
    most = high if high is not None else below - step if below is not None else None
    number = 7 * step
    if most is not None and number > most:
        number = most
    if least is not None and number < least:
        number = least
    return int(number) if kind == "integer" else float(number)


def _text(schema: Mapping[str, Any], name: str) -> str:
    if (text := _TEXTS.get(str(schema.get("format")))) is not None:
        return text
    if schema.get("contentEncoding") == "base64":
        return "AAH/"
    text = name or "text"
    text += "-" * (int(schema.get("minLength", 0)) - len(text))
    return text[: int(schema.get("maxLength", len(text)))]
