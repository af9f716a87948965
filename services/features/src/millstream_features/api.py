"""HTTP doorway of features: Feast's own feature server protocol, for reading, and for writing ordinary views."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, Self, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from millstream.contracts.times import to_rfc3339
from millstream.errors import Refusal, RetryLater
from millstream.runtime import http
from millstream.runtime.http import JsonBody, answer
from millstream_features.ports import ViewTime, ViewTimes

_DATE = re.compile(r"\d{4}-\d\d-\d\d")

MAX_ENTITIES = 1_000
"""Entities of one read. Larger reads are for the offline store; this bounds one request's memory and time."""

MAX_ROWS = 10_000
"""Rows of one push. What has more belongs in a file, and `feast materialize` reads it."""

STATUS = {
    **http.STATUS,
    "unknown_feature": 404,
    "bad_entities": 422,
    "bad_question": 422,
    "unknown_push_source": 422,
    "filled_from_stream": 422,
    "bad_rows": 422,
    "not_pushed_offline": 422,
    "not_materialized_here": 501,
}
"""Every code by which a read or a write is refused, and its HTTP status (Feast's own, where it has one)."""

D = TypeVar("D")


class Reader(Protocol):
    def read(
        self,
        *,
        features: list[str] | None,
        service: str | None,
        entities: dict[str, list[Any]],
        full_names: bool,
        with_versions: bool,
        as_of: datetime | None,
    ) -> dict[str, Any]:
        """Blocks. Raises Refusal with a code of `STATUS`, RetryLater."""


class Rows(Protocol):
    def push(self, *, source: str, columns: dict[str, list[Any]], transform: bool) -> None:
        """Write rows to all views of a push source. Blocks. Raises Refusal with a code of `STATUS`, RetryLater."""

    def write(self, *, view: str, columns: dict[str, list[Any]], transform: bool) -> None:
        """Write rows to one view. Blocks. Raises Refusal with a code of `STATUS`, RetryLater."""


class OnlineFeaturesRequest(BaseModel):
    """Feast's request, with one field more: `as_of` asks for the value at another time than now."""

    model_config = ConfigDict(extra="ignore")

    features: list[str] | None = None
    feature_service: str | None = None
    entities: dict[str, list[Any]]
    request_context: dict[str, list[Any]] = Field(
        default={}, description="What on-demand views need beside entities; Feast's Go client sends it apart."
    )
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False
    as_of: datetime | None = Field(default=None, description="RFC 3339 with offset; default: now.")

    @field_validator("as_of", mode="before")
    @classmethod
    def _a_date_first(cls, said: object) -> object:
        # pydantic also takes numbers, in texts too, as seconds since 1970: "2013" would be an answer about another time.
        if said is not None and not (isinstance(said, str) and _DATE.match(said)):
            raise ValueError("as_of is an RFC 3339 text like 2013-06-01T12:00:00Z")
        return said

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> OnlineFeaturesRequest:
        # Feast's own clients may send the one that they do not mean empty.
        if bool(self.features) == bool(self.feature_service):
            raise ValueError("give either features (['view:feature', …]) or feature_service")
        if self.as_of is not None:
            if self.as_of.tzinfo is None:
                raise ValueError("as_of needs a UTC offset, like 2013-06-01T12:00:00Z")
            try:
                self.as_of.astimezone(UTC)
            except OverflowError as error:
                raise ValueError("as_of is in no year from 1 to 9999 of UTC") from error
        largest = max((len(values) for values in self.entities.values()), default=0)
        if not 1 <= largest <= MAX_ENTITIES:
            raise ValueError(f"entities: {largest} rows; ask for 1 to {MAX_ENTITIES}")
        return self


class _RowsRequest(BaseModel):
    """What Feast's two requests to write have in common. `allow_registry_cache` says nothing: our registry never is behind."""

    model_config = ConfigDict(extra="ignore")

    df: dict[str, list[Any]] = Field(description="Column -> values. Times as RFC 3339 texts.")
    transform_on_write: bool = True

    @model_validator(mode="after")
    def _some(self) -> Self:
        largest = max((len(values) for values in self.df.values()), default=0)
        if not 1 <= largest <= MAX_ROWS:
            raise ValueError(f"df: {largest} rows; send 1 to {MAX_ROWS}")
        return self


class PushRequest(_RowsRequest):
    """Feast's request to push."""

    push_source_name: str
    to: Literal["online", "offline", "online_and_offline"] = "online"


class WriteRequest(_RowsRequest):
    """Feast's request to write to one view."""

    feature_view_name: str


ASKED = JsonBody(
    OnlineFeaturesRequest,
    example={
        "feature_service": "my_feature_service",
        "entities": {"my_join_key": ["a", "b"]},
        "full_feature_names": True,
        "as_of": "2013-06-01T12:00:00Z",
    },
    refusals={
        404: "No such feature or feature service",
        422: "The body does not fit (`faults` point at what is wrong), or its entities or features cannot be read together",
        503: "The online store is away, or the definitions are still being read; try again after Retry-After",
    },
)


_WRITE_REFUSALS = {
    404: "No such view",
    422: "The body does not fit, its rows do not fit the view, or the view is filled from its stream",
    503: "The online store is away, or the definitions are still being read; try again after Retry-After",
}
# Names that are nobody's: every project's refusals show them.
_ROWS = {"my_join_key": ["a"], "my_feature": [4], "event_timestamp": ["2013-06-01T12:00:00Z"]}
PUSHED = JsonBody(PushRequest, example={"push_source_name": "my_push_source", "df": _ROWS}, refusals=_WRITE_REFUSALS)
WRITTEN = JsonBody(WriteRequest, example={"feature_view_name": "my_view", "df": _ROWS}, refusals=_WRITE_REFUSALS)


def add_routes(
    app: FastAPI,
    reader: Callable[[], Reader | None],
    rows: Callable[[], Rows | None],
    times: Callable[[], ViewTimes | None] = lambda: None,
) -> None:
    @app.exception_handler(Refusal)
    async def refuse(request: Request, error: Refusal) -> Response:
        return http.refused(error, STATUS)

    @app.post(
        "/get-online-features",
        tags=["features"],
        summary="Online features, as Feast's own server answers",
        **ASKED.docs,
    )
    async def get_online_features(request: Request) -> Response:
        asked = await ASKED.read(request)
        read = await asyncio.to_thread(
            _ready(reader()).read,
            features=asked.features,
            service=asked.feature_service,
            entities=asked.request_context | asked.entities,
            full_names=asked.full_feature_names,
            with_versions=asked.include_feature_view_version_metadata,
            as_of=asked.as_of,
        )
        return answer(200, read)

    @app.post("/push", tags=["features"], summary="Rows for the ordinary views of a push source", **PUSHED.docs)
    async def push(request: Request) -> Response:
        pushed = await PUSHED.read(request)
        if pushed.to != "online":
            what = f"to: {pushed.to!r}: a push reaches the online store alone"
            raise Refusal("not_pushed_offline", f"{what}; write history to the view's own source, and send to: online")
        await asyncio.to_thread(
            _ready(rows()).push,
            source=pushed.push_source_name,
            columns=pushed.df,
            transform=pushed.transform_on_write,
        )
        return Response(status_code=200)

    @app.post("/write-to-online-store", tags=["features"], summary="Rows for one ordinary view", **WRITTEN.docs)
    async def write_to_online_store(request: Request) -> Response:
        written = await WRITTEN.read(request)
        await asyncio.to_thread(
            _ready(rows()).write,
            view=written.feature_view_name,
            columns=written.df,
            transform=written.transform_on_write,
        )
        return answer(200, None)

    @app.post("/materialize", tags=["features"], summary="Refused: it is not done over HTTP")
    @app.post("/materialize-incremental", tags=["features"], summary="Refused: it is not done over HTTP")
    async def materialize(request: Request) -> Response:
        # It reads whole files for minutes, beside the streams that this process applies.
        what = "windowed views need none, and ordinary ones are materialized by a job of their own"
        raise Refusal(
            "not_materialized_here", f"{what}: run `feast materialize-incremental` in features/, from a scheduler"
        )

    @app.get("/v1/views", tags=["features"], summary="How far each windowed view has come")
    async def show_views() -> Response:
        """`stream_time`: the newest event that is counted. `waits_since`: when the first event became known that is not;
        null means that the view is as fresh as its stream, however long ago its last event was. `filled`: whether the view can
        be read; one that is new or changed cannot until `millstream features rebuild` has been over its history."""
        return answer(200, {"views": [_shown(one) for one in await _ready(times()).all()]})


def _ready(opened: D | None) -> D:
    if opened is None:
        raise RetryLater("the feature definitions are still being read")
    return opened


def _shown(one: ViewTime) -> dict[str, str | bool | None]:
    def text(micros: int | None) -> str | None:
        return None if micros is None else to_rfc3339(micros)

    return {
        "view": one.view,
        "stream": one.stream,
        "stream_time": text(one.stream_time),
        "waits_since": text(one.waits_since),
        "filled": one.filled,
    }
