"""HTTP doorway of features: Feast's own feature server protocol, for reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from millstream.contracts.times import to_rfc3339
from millstream.errors import Refusal, RetryLater
from millstream.runtime import http
from millstream.runtime.http import JsonBody, answer
from millstream_features.ports import ViewTime, ViewTimes

MAX_ENTITIES = 1_000
"""Entities of one read. Larger reads are for the offline store; this bounds one request's memory and time."""

STATUS = {**http.STATUS, "unknown_feature": 404, "bad_entities": 422, "bad_question": 422}
"""Every code by which a read is refused, and its HTTP status."""


class Reader(Protocol):
    def read(
        self,
        *,
        features: list[str] | None,
        service: str | None,
        entities: dict[str, list[Any]],
        full_names: bool,
        as_of: datetime | None,
    ) -> dict[str, Any]:
        """Blocks. Raises Refusal with a code of `STATUS`, RetryLater."""


class OnlineFeaturesRequest(BaseModel):
    """Feast's request, with one field more: `as_of` asks for the value at another time than now."""

    model_config = ConfigDict(extra="ignore")

    features: list[str] | None = None
    feature_service: str | None = None
    entities: dict[str, list[Any]]
    full_feature_names: bool = False
    as_of: datetime | None = Field(default=None, description="RFC 3339 with offset; default: now.")

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


ASKED = JsonBody(
    OnlineFeaturesRequest,
    example={
        "feature_service": "delay_v1",
        "entities": {"origin": ["JFK"], "dest": ["LAX"], "carrier": ["B6"], "tailnum": ["N708JB"]},
        "full_feature_names": True,
        "as_of": "2013-06-01T12:00:00Z",
    },
    refusals={
        404: "No such feature or feature service",
        422: "The body does not fit (`faults` point at what is wrong), or its entities or features cannot be read together",
        503: "The online store is away, or the definitions are still being read; try again after Retry-After",
    },
)


def add_routes(
    app: FastAPI, reader: Callable[[], Reader | None], times: Callable[[], ViewTimes | None] = lambda: None
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
        found = reader()
        if found is None:
            raise RetryLater("the feature definitions are still being read")
        read = await asyncio.to_thread(
            found.read,
            features=asked.features,
            service=asked.feature_service,
            entities=asked.entities,
            full_names=asked.full_feature_names,
            as_of=asked.as_of,
        )
        return answer(200, read)

    @app.get("/v1/views", tags=["features"], summary="How far each windowed view has come")
    async def show_views() -> Response:
        """`stream_time`: the newest event that is counted. `waits_since`: when the first event became known that is not;
        null means that the view is as fresh as its stream, however long ago its last event was."""
        found = times()
        if found is None:
            raise RetryLater("the feature definitions are still being read")
        return answer(200, {"views": [_shown(one) for one in await found.all()]})


def _shown(one: ViewTime) -> dict[str, str | None]:
    def text(micros: int | None) -> str | None:
        return None if micros is None else to_rfc3339(micros)

    return {
        "view": one.view,
        "stream": one.stream,
        "stream_time": text(one.stream_time),
        "waits_since": text(one.waits_since),
    }
