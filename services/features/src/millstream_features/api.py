"""HTTP doorway of features: Feast's own feature server protocol, for reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from millstream.errors import RejectEvent, RetryLater

MAX_ENTITIES = 1_000
"""Entities of one read. Larger reads are for the offline store; this bounds one request's memory and time."""

STATUS = {"unknown_feature": 404, "bad_entities": 422}


class Reader(Protocol):
    def read(
        self,
        *,
        features: list[str] | None,
        service: str | None,
        entities: dict[str, list[Any]],
        full_names: bool,
        as_of: datetime | None,
    ) -> dict[str, Any]: ...


class OnlineFeaturesRequest(BaseModel):
    """Feast's request, with one field more: `as_of` asks for the value at another time than now."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "feature_service": "delay_v1",
                    "entities": {"origin": ["JFK"], "dest": ["LAX"], "carrier": ["B6"], "tailnum": ["N708JB"]},
                    "full_feature_names": True,
                    "as_of": "2013-06-01T12:00:00Z",
                }
            ]
        },
    )

    features: list[str] | None = None
    feature_service: str | None = None
    entities: dict[str, list[Any]]
    full_feature_names: bool = False
    as_of: datetime | None = Field(default=None, description="RFC 3339 with offset; default: now.")

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> OnlineFeaturesRequest:
        if (self.features is None) == (self.feature_service is None):
            raise ValueError("give either features (['view:feature', …]) or feature_service")
        if self.as_of is not None and self.as_of.tzinfo is None:
            raise ValueError("as_of needs a UTC offset, like 2013-06-01T12:00:00Z")
        largest = max((len(values) for values in self.entities.values()), default=0)
        if not 1 <= largest <= MAX_ENTITIES:
            raise ValueError(f"entities: {largest} rows; ask for 1 to {MAX_ENTITIES}")
        return self


def add_routes(app: FastAPI, reader: Callable[[], Reader | None]) -> None:
    @app.exception_handler(RejectEvent)
    async def rejected(request: Request, error: RejectEvent) -> Response:
        return JSONResponse({"error": error.reason, "message": error.detail}, STATUS.get(error.reason, 400))

    @app.exception_handler(RetryLater)
    async def later(request: Request, error: RetryLater) -> Response:
        return JSONResponse(
            {"error": "unavailable", "message": str(error)}, status_code=503, headers={"Retry-After": "1"}
        )

    @app.post("/get-online-features", tags=["features"], summary="Online features, as Feast's own server answers")
    async def get_online_features(asked: OnlineFeaturesRequest) -> Response:
        found = reader()
        if found is None:
            raise RetryLater("the feature definitions are still being read")
        answer = await asyncio.to_thread(
            found.read,
            features=asked.features,
            service=asked.feature_service,
            entities=asked.entities,
            full_names=asked.full_feature_names,
            as_of=asked.as_of,
        )
        return JSONResponse(answer)
