"""What a model is fitted on."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from millstream.contracts.times import DAY
from millstream.project.duration import PositiveDuration
from millstream.project.history import ALL, Histories, longest
from millstream.project.names import STRICT


class FirstAfter(BaseModel):
    """When there is enough to learn the first model from."""

    model_config = STRICT

    rows: Annotated[int, Field(ge=100, le=1_000_000_000)] = 20_000
    """Matured labels. Below some thousands a first champion is luck, and every challenger is then measured against it."""


class Train(BaseModel):
    """What a model is fitted on, and when without being asked."""

    model_config = STRICT

    history: Histories = (ALL,)
    """How far back rows reach: `all`, a duration, `since-change` (from the first window that showed it), or a list of them:
    each is fitted, and the first is kept unless another is better on the validation slice by two standard errors. All is the
    safe start: forgetting must earn its place. What competes has to be longer than the holdout and the validation slices before
    it together: holdout × (1 + folds)."""
    holdout: PositiveDuration = 7 * DAY
    """Newest rows kept from the fit: the gate compares on them. A week holds every weekday once. 200 of them need a label by
    then, so it is longer than labels take: a run with fewer fails, and `millstream check` notes a holdout that is not longer
    than `label.within`, the most that labels may take."""
    folds: Annotated[int, Field(ge=1, le=10)] = 1
    """Validation slices, each as long as the holdout and right before it or before the next: candidates are compared on all of
    them, fitted on what was before each. Time of broken inputs, of which nothing is learned, does not count in their length.
    More are slower and less lucky."""
    refit: bool = False
    """Fit once more on everything, holdout included, after the gate passed: the newest week is learned too. The gate's numbers
    then speak of a twin that did not see it, and the manifest says so."""
    first_after: FirstAfter = FirstAfter()
    schedule: PositiveDuration | None = None
    """Retrain this often even when nothing drifts; null: never by the calendar alone."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7
    """Fixed, so that the same data give the same model and a replay the same decisions."""

    @property
    def longest(self) -> int | None:
        """How far back rows must reach, microseconds; None: all of them."""
        return longest(self.history)
