"""Checks the JSON Schema that a stream's events have to fit, and answers what type a field has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import unquote

import jsonschema_rs

from millstream.project.problem import Fault, Path, gaps_of, known, meant, nearest, visible

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
_NO_TIME = ' is not a "date-time"'
TYPES = frozenset(_words("array boolean integer null number object string"))
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


def words_of(error: jsonschema_rs.ValidationError, most: int) -> str:
    """What is wrong with an event, in `most` characters, and how a time is written: the schema alone does not show that."""
    message = error.message if len(error.message) <= most else f"{error.message[:most]}…"
    return f"{message}; write a time like 2013-01-31T09:30:00Z" if error.message.endswith(_NO_TIME) else message


def schema_faults(schema: Mapping[str, Any]) -> list[Fault]:
    """Everything that is wrong with `schema` itself, whatever else is."""
    faults: list[Fault] = []
    for look in (_keyword_faults, _dialect_faults, _meta_faults, _compile_faults, _required_faults):
        faults += visible(look(schema), gaps_of(faults))
    return faults


def _subschemas(schema: Any, path: Path = (), depth: int = 0) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """`schema` and every schema inside it with its place; None for one that is nested too deep to be looked at."""
    if not isinstance(schema, dict):
        return
    if depth > DEEPEST:
        yield path, None
        return
    yield path, schema
    for keyword, value in schema.items():
        here = (*path, keyword)
        if keyword in _ONE:
            yield from _subschemas(value, here, depth + 1)
        elif keyword in _LISTS and isinstance(value, list):
            for position, inner in enumerate(value):
                yield from _subschemas(inner, (*here, position), depth + 1)
        elif keyword in _MAPS and isinstance(value, dict):
            for name, inner in value.items():
                yield from _subschemas(inner, (*here, name), depth + 1)


def _keyword_faults(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Unknown keywords, formats and types: most of them JSON Schema would pass over in silence."""
    for path, inner in _subschemas(schema):
        if inner is None:
            yield Fault(path=path, message=f"nested deeper than {DEEPEST} schemas", remedy="write it flatter")
            continue
        for keyword, value in inner.items():
            here = (*path, keyword)
            if keyword not in KEYWORDS and not keyword.startswith("x-"):
                slip = meant(keyword, KEYWORDS.difference(inner))
                hides = ((*path, slip),) if slip else ()
                message, remedy = f"unknown JSON Schema keyword {keyword!r}", _near_keyword(keyword)
                yield Fault(path=here, message=message, remedy=remedy, hides=hides)
            elif keyword == "format" and not (isinstance(value, str) and value in FORMATS):
                yield Fault(path=here, message=f"unknown format {value!r}", remedy=nearest(str(value), FORMATS))
            elif keyword == "type" and isinstance(value, str) and value not in TYPES:
                yield Fault(path=here, message=f"unknown type {value!r}", remedy=nearest(value, TYPES))


def _dialect_faults(schema: Mapping[str, Any]) -> Iterator[Fault]:
    if schema.get("$schema", DIALECT) != DIALECT:
        remedy = f"write {DIALECT} or leave it out"
        yield Fault(path=("$schema",), message=f"dialect {schema['$schema']!r}", remedy=remedy)


def _meta_faults(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Whatever 2020-12 does not allow, each place once; and events are objects."""
    if schema.get("type") != "object":
        yield Fault(path=("type",), message="events are JSON objects", remedy="write type: object")
    messages: dict[Path, str] = {}
    for error in _META.iter_errors(dict(schema)):
        messages.setdefault(tuple(error.instance_path), error.message)
    for path, message in messages.items():
        if path != ("type",):
            yield Fault(path=path, message=message, remedy="write what JSON Schema 2020-12 allows there")


_META = jsonschema_rs.Draft202012Validator({"$ref": DIALECT}, offline=True)


def _compile_faults(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """The patterns and references for which a sound schema does not compile; the schema as a whole where it is none of them."""
    if (reason := _refusal(schema)) is None:
        return
    culprits = [fault for path, inner in _subschemas(schema) for fault in _culprits(schema, path, inner or {})]
    yield from culprits or [Fault(message=reason, remedy="refer to #/$defs only; patterns without look-around")]


def _culprits(schema: Mapping[str, Any], path: Path, inner: Mapping[str, Any]) -> Iterator[Fault]:
    patterns: dict[Path, Any] = {(*path, "pattern"): inner.get("pattern")}
    if isinstance(inner.get("patternProperties"), dict):
        patterns |= {(*path, "patternProperties", name): name for name in inner["patternProperties"]}
    for site, pattern in patterns.items():
        if isinstance(pattern, str) and _refusal({"pattern": pattern}) is not None:
            remedy = "write a regular expression without look-around and back-references"
            yield Fault(path=site, message=f"{pattern!r} is no pattern that we run", remedy=remedy)
    if isinstance(reference := inner.get("$ref"), str):
        yield from _reference_faults(schema, (*path, "$ref"), reference)


def _refusal(schema: Mapping[str, Any]) -> str | None:
    """Why `schema` does not compile."""
    try:
        compile_schema(schema)
    except ValueError as error:
        return str(error).partition("\n")[0]
    return None


def _reference_faults(schema: Mapping[str, Any], path: Path, reference: str) -> Iterator[Fault]:
    defs = schema.get("$defs")
    remedy = "refer to #/$defs; " + known(f"#/$defs/{name}" for name in (defs if isinstance(defs, dict) else ()))
    if reference.startswith("#/"):
        target: Any = schema
        steps = [unquote(step).replace("~1", "/").replace("~0", "~") for step in reference.split("/")[1:]]
        for step in steps:
            if isinstance(target, list) and step.isdecimal() and int(step) < len(target):
                target = target[int(step)]
            elif isinstance(target, dict) and step in target:
                target = target[step]
            else:
                message = f"{reference!r} leads nowhere"
                yield Fault(path=path, message=message, remedy=remedy, rests_on=(path, tuple(steps)))
                return
    elif not reference.startswith("#") and "$id" not in str(schema) and _refusal({"$ref": reference}) is not None:
        # Without an $id nothing in the file has an address of its own.
        yield Fault(path=path, message=f"{reference!r} is outside of this file", remedy=remedy)


def _required_faults(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Every name in the outermost `required` is a field."""
    properties, required = properties_of(schema), required_of(schema)
    for position, name in enumerate(required):
        if isinstance(name, str) and name not in properties:
            path, place = ("required", position), ("properties", name)
            remedy = f"declare it under properties; {nearest(name, properties)}"
            slip = meant(name, set(properties).difference(n for n in required if isinstance(n, str)))
            hides = (("required", slip),) if slip else ()
            message = f"{name!r} is not in properties"
            yield Fault(path=path, message=message, remedy=remedy, rests_on=(path, place), hides=hides)


def _near_keyword(keyword: str) -> str:
    near = nearest(keyword, KEYWORDS)
    question = near.partition("? ")[0] + "? " if near.startswith("did you mean") else ""
    return question + "own annotations start with x-"


def properties_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event; none where a malformed schema says something else."""
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def required_of(schema: Mapping[str, Any]) -> list[Any]:
    """What every event has; nothing where a malformed schema says something else."""
    required = schema.get("required")
    return required if isinstance(required, list) else []


def field_types(schema: Mapping[str, Any], name: str) -> frozenset[str]:
    """JSON types that field `name` of an event may have; empty where the schema does not say.

    Reads `type`, `enum`, `const` and a `$ref` into `#/$defs`; whoever hides a type elsewhere is asked to write it.
    """
    return _types(schema, properties_of(schema).get(name), set())


def _types(root: Mapping[str, Any], schema: Any, seen: set[str]) -> frozenset[str]:
    if not isinstance(schema, dict):
        return frozenset()
    match schema:
        case {"type": str() as one}:
            return frozenset({one})
        case {"type": list() as several}:
            return frozenset(type_ for type_ in several if isinstance(type_, str))
        case {"const": value}:
            return frozenset({_type_of(value)})
        case {"enum": list() as values}:
            return frozenset(_type_of(value) for value in values)
        case {"$ref": str() as reference} if reference.startswith("#/$defs/") and reference not in seen:
            defs = root.get("$defs")
            inner = defs.get(reference.removeprefix("#/$defs/")) if isinstance(defs, dict) else None
            return _types(root, inner, seen | {reference})
        case _:
            return frozenset()


def _type_of(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array"}
    return names.get(type(value), "object")
