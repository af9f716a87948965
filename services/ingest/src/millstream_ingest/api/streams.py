"""The routes that say which streams there are, and what their events look like and looked like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from millstream.contracts.asyncapi import asyncapi
from millstream.errors import Refusal
from millstream.project.versions import Versions
from millstream.runtime.http import JSON, answer, refusing
from millstream_ingest.api.answers import refused

SCHEMA = "application/schema+json"
_OWN = {"avro": "application/vnd.apache.avro+json", "protobuf": "text/x-protobuf"}
_SCHEMAS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The schema; its version is in the header `millstream-schema-version`",
        "content": {kind: {} for kind in (SCHEMA, *_OWN.values())},
    },
    **refusing({404: "No such stream, or no such version of it; the answer names those there are"}),
}

Version = Annotated[int | None, Query(ge=1, le=99_999, description="An earlier version. Default: the one that holds")]
Form = Annotated[
    Literal["json", "own"],
    Query(description="`own`: the .avsc or .proto file of a stream in Avro or protobuf, as it is"),
]


def known_streams(versions: Mapping[str, Versions]) -> APIRouter:
    """The router of it."""
    router = APIRouter(prefix="/v1", tags=["streams"])
    streams = [_line(one) for one in versions.values()]

    @router.get("/streams", summary="Which streams take events")
    async def list_streams() -> Response:
        """Every stream that takes events, with its key, id and time fields, and the versions of its schema."""
        return answer(200, {"streams": streams})

    @router.get(
        "/streams/{stream}/schema", summary="What events look like", responses=_SCHEMAS, response_class=Response
    )
    async def schema(stream: str, version: Version = None, form: Form = "json") -> Response:
        """The JSON Schema that the stream's events have to fit, or had to."""
        if (there := versions.get(stream)) is None:
            known = sorted(versions)
            said = f"no stream {stream[:100]!r}; known: {', '.join(known)}"
            return _refused(Refusal("unknown_stream", said, known=known))
        found = there.get(version or there.newest)
        if found is None:
            numbers = sorted({*there.kept, there.newest})
            said = f"{stream} has no version {version}; known: {', '.join(map(str, numbers))}"
            return _refused(Refusal("unknown_version", said, known=numbers))
        headers = {"millstream-schema-version": str(version or there.newest)}
        if form == "own" and found.wire is not None:
            return Response(found.wire.text, 200, headers, _OWN[found.format])
        return answer(200, found.event_schema, headers, SCHEMA)

    @router.get("/asyncapi.json", summary="The topics, as AsyncAPI 3")
    async def document() -> Response:
        """Every topic that the project's services write or read, with what lies in it."""
        return answer(200, asyncapi({name: one.stream for name, one in versions.items()}))

    return router


def _refused(refusal: Refusal) -> Response:
    said = refused(refusal)
    return Response(said.body, said.status, media_type=JSON)


def _line(there: Versions) -> dict[str, Any]:
    stream = there.stream
    said = {
        "stream": stream.name,
        "description": stream.description,
        "key": stream.key,
        "id": stream.id,
        "time": stream.time,
        "format": stream.format,
        "compatibility": stream.compatibility,
        "version": there.newest,
        "versions": sorted({*there.kept, there.newest}),
    }
    message = getattr(stream.wire, "message", None)
    return said | ({"message": message} if message else {})
