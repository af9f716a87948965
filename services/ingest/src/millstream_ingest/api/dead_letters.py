"""The route that counts dead letters."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from millstream.errors import Refusal
from millstream.runtime.http import JSON, answer, refusing
from millstream_ingest.api import answers
from millstream_ingest.errors import LogAway
from millstream_ingest.handlers import Porter
from millstream_ingest.handlers.census import Census

_EXAMPLE = {
    "at": "2013-04-01T00:00:00Z",
    "complete": True,
    "waiting": 2,
    "topics": [
        {
            "dead_letter_topic": "flights-departed-features-tiles-dlq",
            "topic": "flights-departed",
            "group": "features-tiles",
            "retained": 2,
            "looked_at": 2,
            "letters": [
                {
                    "topic": "flights-departed",
                    "group": "features-tiles",
                    "reason": "schema",
                    "letters": 2,
                    "replayed": 0,
                    "first": "2013-03-31T20:00:00Z",
                    "last": "2013-03-31T21:00:00Z",
                    "example": '/dep_delay: "two" is not of type "number"',
                }
            ],
        }
    ],
}
_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Counts by topic, group and reason; of the newest letters of each topic where `complete` is false",
        "content": {JSON: {"example": _EXAMPLE}},
    },
    **refusing(
        {
            401: "No credential, or none that is good",
            403: "A credential that is not for every stream: the counts show something of each",
            503: "Kafka is away, or there is too much to count; `message` says more",
        }
    ),
}


def dead_letters(census: Census, porter: Porter) -> APIRouter:
    """The router of it."""
    router = APIRouter(prefix="/v1", tags=["dead letters"])

    @router.get("/dead-letters", summary="What nobody could use, by topic, group and reason", responses=_DOCS)
    async def count(request: Request) -> Response:
        """Records of the project's topics that a service could not use. Kafka keeps them for 30 days."""
        try:
            await porter.sees_all(request.scope["headers"])
        except (Refusal, LogAway) as error:
            said = answers.refused(answers.refusal_of(error))
            return Response(said.body, said.status, {n.decode(): v.decode() for n, v in said.headers}, JSON)
        return answer(200, await census.counted())

    return router
