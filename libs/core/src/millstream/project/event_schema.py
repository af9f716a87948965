"""Checks the JSON Schema that a stream's events have to fit, and answers what type a field has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jsonschema_rs

from millstream.project.problem import Fault, Path, nearest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEEPEST = 30
"""Levels of subschemas; ingest bounds events to less, and a walk must not reach the interpreter's own limit."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONE = _words("""
    additionalProperties contains contentSchema else if items not propertyNames then unevaluatedItems unevaluatedProperties
""")
_LISTS = _words("allOf anyOf oneOf prefixItems")
_MAPS = _words("$defs dependentSchemas patternProperties properties")
_PLAIN = _words("""
    $anchor $comment $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary const contentEncoding contentMediaType
    default dependentRequired deprecated description enum examples exclusiveMaximum exclusiveMinimum format maxContains
    maxItems maxLength maxProperties maximum minContains minItems minLength minProperties minimum multipleOf pattern
    readOnly required title type uniqueItems writeOnly
""")
KEYWORDS = frozenset([*_ONE, *_LISTS, *_MAPS, *_PLAIN])
"""All of 2020-12. JSON Schema ignores what it does not know, so a typo in a keyword would check nothing."""
FORMATS = frozenset(
    _words("""
        date date-time duration email hostname idn-email idn-hostname ipv4 ipv6 iri iri-reference json-pointer regex
        relative-json-pointer time uri uri-reference uri-template uuid
    """)
)
SCALARS = frozenset({"string", "number", "integer", "boolean", "null"})
NUMBERS = frozenset({"number", "integer"})


def _offline(address: str) -> NoReturn:
    raise ValueError(f"{address} is outside of this file")


def compile_schema(schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """The validator of `schema`: formats are checked, patterns run in linear time, nothing is ever fetched.

    Raises ValueError when it does not compile.
    """
    return jsonschema_rs.Draft202012Validator(
        dict(schema), validate_formats=True, retriever=_offline, pattern_options=jsonschema_rs.RegexOptions()
    )


def schema_faults(schema: Mapping[str, Any]) -> list[Fault]:
    """Everything that is wrong with `schema` itself."""
    faults = list(_walk(schema, (), 0))
    if schema.get("$schema", DIALECT) != DIALECT:
        faults.append(
            Fault(
                path=("$schema",), message=f"dialect {schema['$schema']!r}", remedy=f"write {DIALECT} or leave it out"
            )
        )
    if faults:
        return faults
    if schema.get("type") != "object":
        return [Fault(path=("type",), message="events are JSON objects", remedy="write type: object")]
    for error in _META.iter_errors(dict(schema)):
        path = tuple(error.instance_path)
        faults.append(Fault(path=path, message=error.message, remedy="write what JSON Schema 2020-12 allows there"))
    if faults:
        return faults
    try:
        compile_schema(schema)
    except ValueError as error:
        first_line = str(error).partition("\n")[0]
        faults.append(Fault(message=first_line, remedy="refer to #/$defs only; patterns without look-around"))
    properties = schema.get("properties", {})
    for position, name in enumerate(schema.get("required", [])):
        if name not in properties:
            remedy = f"declare it under properties; {nearest(name, properties)}"
            faults.append(Fault(path=("required", position), message=f"{name!r} is not in properties", remedy=remedy))
    return faults


_META = jsonschema_rs.Draft202012Validator({"$ref": DIALECT}, offline=True)


def _walk(schema: Any, path: Path, depth: int) -> Iterator[Fault]:
    """Unknown keywords and formats, in this schema and the ones inside it."""
    if not isinstance(schema, dict):
        return
    if depth > DEEPEST:
        yield Fault(path=path, message=f"nested deeper than {DEEPEST} schemas", remedy="write it flatter")
        return
    for keyword, value in schema.items():
        here = (*path, keyword)
        if keyword not in KEYWORDS and not keyword.startswith("x-"):
            yield Fault(path=here, message=f"unknown JSON Schema keyword {keyword!r}", remedy=_near_keyword(keyword))
        elif keyword == "format" and not (isinstance(value, str) and value in FORMATS):
            yield Fault(path=here, message=f"unknown format {value!r}", remedy=nearest(str(value), FORMATS))
        elif keyword in _ONE:
            yield from _walk(value, here, depth + 1)
        elif keyword in _LISTS and isinstance(value, list):
            for position, inner in enumerate(value):
                yield from _walk(inner, (*here, position), depth + 1)
        elif keyword in _MAPS and isinstance(value, dict):
            for name, inner in value.items():
                yield from _walk(inner, (*here, name), depth + 1)


def _near_keyword(keyword: str) -> str:
    near = nearest(keyword, KEYWORDS)
    question = near.partition("? ")[0] + "? " if near.startswith("did you mean") else ""
    return question + "own annotations start with x-"


def field_types(schema: Mapping[str, Any], name: str) -> frozenset[str]:
    """JSON types that field `name` of an event may have; empty where the schema does not say.

    Reads `type`, `enum`, `const` and a `$ref` into `#/$defs`; whoever hides a type elsewhere is asked to write it.
    """
    return _types(schema, schema.get("properties", {}).get(name), set())


def _types(root: Mapping[str, Any], schema: Any, seen: set[str]) -> frozenset[str]:
    if not isinstance(schema, dict):
        return frozenset()
    match schema:
        case {"type": str() as one}:
            return frozenset({one})
        case {"type": list() as several}:
            return frozenset(several)
        case {"const": value}:
            return frozenset({_type_of(value)})
        case {"enum": list() as values}:
            return frozenset(_type_of(value) for value in values)
        case {"$ref": str() as reference} if reference.startswith("#/$defs/") and reference not in seen:
            return _types(root, root.get("$defs", {}).get(reference.removeprefix("#/$defs/")), seen | {reference})
        case _:
            return frozenset()


def _type_of(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array"}
    return names.get(type(value), "object")
