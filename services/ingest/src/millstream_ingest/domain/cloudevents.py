"""Reads CloudEvents 1.0 as HTTP carries them: structured, batched (their JSON format) and binary (attributes in headers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from millstream.contracts.json_text import read_json
from millstream.errors import Refusal
from millstream_ingest.domain.reading import shown
from millstream_ingest.errors import BadEvent

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
LONGEST = 1024
"""Bytes of an attribute: they travel in every record, as ids and keys do."""
_ENCODE = msgspec.json.Encoder().encode


class Origin(msgspec.Struct, frozen=True, gc=False):
    """What a CloudEvent says of itself. The fields of the event rule: only what the stream does not say is taken from here."""

    id: str
    """Names the event where the stream has no id of its own."""
    source: str
    """Who says it; the record passes it on."""


def structured(raw: bytes) -> tuple[bytes, Origin]:
    """The event inside one JSON CloudEvent, and its origin. Raises BadEvent."""
    try:
        whole: Any = read_json(raw)
    except Refusal as error:
        raise BadEvent(error.code, str(error), **error.more) from error
    if type(whole) is not dict:
        raise BadEvent("not_an_object", "a CloudEvent is a JSON object", expected="object", got=shown(whole))
    origin = _origin(whole, "/")
    _is_json(whole.get("datacontenttype"), "/datacontenttype")
    if "data" not in whole:
        said = "as JSON in data, not in data_base64" if "data_base64" in whole else "in data"
        raise BadEvent("bad_cloudevent", f"the event itself is missing; send it {said}", pointer="/data")
    return _ENCODE(whole["data"]), origin


def binary(headers: Mapping[bytes, bytes]) -> Origin:
    """The origin in `ce-` headers; the body is the event. Raises Refusal(`bad_cloudevent`)."""
    attributes = {}
    for name in ("specversion", "id", "source", "type"):
        value = headers.get(b"ce-" + name.encode())
        if value is not None:
            # Percent-encoded UTF-8 (HTTP protocol binding 3.1.3.2); quotes may stand around it.
            if len(value) > 1 and value[:1] == value[-1:] == b'"':
                value = value[1:-1]
            try:
                attributes[name] = unquote_to_bytes(value).decode()
            except UnicodeDecodeError as error:
                raise Refusal("bad_cloudevent", f"ce-{name} is percent-encoded UTF-8; got {value[:100]!r}") from error
    try:
        return _origin(attributes, "header ce-")
    except BadEvent as error:
        raise Refusal("bad_cloudevent", error.detail) from error


def _origin(attributes: Mapping[str, Any], place: str) -> Origin:
    for name in ("specversion", "id", "source", "type"):
        value = attributes.get(name)
        if not isinstance(value, str) or not value or len(value.encode("utf-8", "replace")) > LONGEST:
            raise _bad(place, name, f"a text of 1 to {LONGEST} bytes", value)
        if not value.isprintable():
            raise _bad(place, name, "a text without control characters", value)
    if attributes["specversion"] != "1.0":
        raise _bad(place, "specversion", "1.0", attributes["specversion"])
    return Origin(attributes["id"], attributes["source"])


def _bad(place: str, name: str, expected: str, got: Any) -> BadEvent:
    pointer = f"/{name}" if place == "/" else ""
    message = f"a CloudEvent's {name} ({place}{name}) is {expected}"
    return BadEvent("bad_cloudevent", message, pointer=pointer, expected=expected, got=shown(got))


def _is_json(kind: Any, pointer: str) -> None:
    said = kind.partition(";")[0].strip().lower() if isinstance(kind, str) else kind
    if said is not None and said != "application/json" and not (isinstance(said, str) and said.endswith("+json")):
        raise BadEvent(
            "bad_cloudevent", "data is JSON here", pointer=pointer, expected="application/json", got=shown(kind)
        )
