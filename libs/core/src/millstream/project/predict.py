"""What is asked of a loop, and what it may know when it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from millstream.contracts.times import SECOND
from millstream.project.duration import PositiveDuration
from millstream.project.fields import text_of
from millstream.project.names import STRICT, FieldName, Name
from millstream.project.words import OneOrMore

WhenStale = Literal["wait", "flag", "refuse"]


class Freshness(BaseModel):
    """What serving does when the features have not kept up with the questions. A quiet stream is not stale."""

    model_config = STRICT

    bound: PositiveDuration = 30 * SECOND
    """How far the features may lag behind a question. Above the 12 s in which a killed features process is replaced, so
    that a restart is no staleness; what was known longer than this before the question has been counted, or is missed."""
    when_stale: WhenStale | None = None
    """`wait` until they have caught up (30 seconds of an outage at most, then as `flag`), `flag` the answer, or `refuse` to
    give one. Left out: questions over Kafka wait, since nobody holds a connection open for them; over HTTP they are flagged."""


class Predict(BaseModel):
    """What is asked, and what the model may know when it answers."""

    model_config = STRICT

    on: Name
    """Stream whose every event asks for one prediction; HTTP may ask the same question."""
    features: Annotated[str, Field(min_length=1, max_length=200)]
    """A Feast FeatureService of `features/`: what is looked up about the question's entities."""
    inputs: OneOrMore[FieldName]
    """Fields of the asking event that the model reads as they are."""
    id: FieldName | None = None
    """Field that tells questions apart, so that one asked twice is answered once. Default: the asked stream's id."""

    freshness: Freshness = Freshness()
    unlogged: Literal["refuse", "answer"] = "refuse"
    """What happens over HTTP and gRPC when an answer cannot go on record, because Kafka does not answer: `refuse` to give it
    (503 `not_logged`), or `answer` as long as there is room to remember it, and beyond that count what is on no record.
    Questions over Kafka wait."""

    store_away: Literal["refuse", "default"] = "refuse"
    """What happens when the online store does not answer: `refuse` to answer (503 `unavailable`; questions over Kafka wait), or
    `default`, which asks the model with every feature null and flags the answer `store_away`. A question then waits for the
    store half a second at most, and while it is known to be away not at all; over Kafka it first waits 30 seconds of an outage.
    Drift judges nothing by flagged answers."""

    def id_of(self, event: Mapping[str, Any]) -> str:
        """Id of the question. Raises RejectEvent(`missing_field`). Only on loops of a loaded project: it sets the default."""
        if self.id is None:
            raise ValueError("this loop was not read with load_project, which fills predict.id in")
        return text_of(event, self.id)
