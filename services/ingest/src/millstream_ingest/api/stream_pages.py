"""A page of the API's docs for each stream: what its events look like, with one that is accepted as it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI

from millstream.contracts.asyncapi import moved
from millstream.project import Stream
from millstream.runtime.http import JSON
from millstream_ingest.api.docs import EVENT, NDJSON
from millstream_ingest.domain.example import example_of

PATH = "/v1/streams/{stream}/events"


def add_pages(app: FastAPI, streams: Mapping[str, Stream]) -> None:
    """Put a path for each of `streams` beside the one for all of them; made once, when somebody asks."""
    plain: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        if "x-streams" not in document["info"]:
            document["info"]["x-streams"] = sorted(streams)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, stream in sorted(streams.items()):
                schemas[name] = moved(stream.event_schema, f"#/components/schemas/{name}")
                document["paths"][PATH.format(stream=name)] = {"post": _page(stream)}
            tags = [{"name": name, "description": stream.description} for name, stream in sorted(streams.items())]
            document["tags"] = [*document.get("tags", ()), *tags]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def example(stream: Stream) -> Any | None:
    """An event that `stream` accepts; None where its schema has rules that only its author's `examples` can show."""
    found = example_of(stream.event_schema)
    return found if stream.validator().is_valid(found) else None


def _page(stream: Stream) -> dict[str, Any]:
    event: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{stream.name}"}}
    if (found := example(stream)) is not None:
        event["example"] = found
    said = f"{stream.description} Record key `{stream.key}`, event time `{stream.time}`"
    said += f", event id `{stream.id}`." if stream.id else ", no event id of its own."
    extra = EVENT["openapi_extra"]
    return {
        "tags": [stream.name],
        "summary": f"Send to {stream.name}",
        "description": said,
        "operationId": f"send_{stream.name}",
        "parameters": extra["parameters"],
        "requestBody": {"required": True, "content": {JSON: event, NDJSON: {"schema": {"type": "string"}}}},
        "responses": {str(code): answer for code, answer in EVENT["responses"].items()},
    }
