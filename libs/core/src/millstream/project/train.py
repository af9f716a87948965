"""What a model is fitted on."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from millstream.contracts.times import DAY
from millstream.project.duration import PositiveDuration
from millstream.project.names import STRICT
from millstream.project.words import AllOr


class FirstAfter(BaseModel):
    """When there is enough to learn the first model from."""

    model_config = STRICT

    rows: Annotated[int, Field(ge=100, le=1_000_000_000)] = 20_000
    """Matured labels. Below some thousands a first champion is luck, and every challenger is then measured against it."""


class Train(BaseModel):
    """What a model is fitted on, and when without being asked."""

    model_config = STRICT

    history: AllOr[PositiveDuration] = None
    """How far back rows reach, or `all` (None in code). All is the safe start: forgetting must earn its place at the gate."""
    holdout: PositiveDuration = 7 * DAY
    """Newest rows kept from the fit: the gate compares on them. A week holds every weekday once."""
    first_after: FirstAfter = FirstAfter()
    schedule: PositiveDuration | None = None
    """Retrain this often even when nothing drifts; null: never by the calendar alone."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7
    """Fixed, so that the same data give the same model and a replay the same decisions."""
