"""How a challenger that passed the gate comes to answer: in the shadow, for some entities, for all; and comes back."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from millstream.contracts.times import DAY
from millstream.project.duration import Duration, PositiveDuration
from millstream.project.names import STRICT, FieldName
from millstream.project.phrases import PercentText, ShareText


def _growing(shares: tuple[float, ...]) -> tuple[float, ...]:
    if any(not 0 < share < 1 for share in shares) or any(a >= b for a, b in pairwise(shares)):
        raise ValueError("each share must be above the one before it, between 0% and 100%; write them like [10%, 50%]")
    return shares


class Guards(BaseModel):
    """What ends a trial at once, whatever the labels say later."""

    model_config = STRICT

    failures: PercentText = 0.01
    """Share of questions that the challenger raised on, answered too late or answered with NaN; the champion answered those."""
    deadline: Annotated[int, Field(ge=1, le=60_000)] = 100
    """Milliseconds that the challenger may take for one request; then the champion answers. Ten times what trees take."""
    slower: Annotated[float, Field(gt=1, le=1000)] = 5.0
    """How many times the champion's mean time the challenger may take; below a millisecond a question any."""
    psi: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Population stability index between the answers of both on the same questions: twice what is called large. This finds a
    model that answers something else altogether. After a change of the world the cure does too: labels that speak for it
    overrule this, and the shadow waits for them."""


class Rollout(BaseModel):
    """Steps from the gate to all questions. A first model has nobody to be compared with and answers at once."""

    model_config = STRICT

    shadow: Annotated[int, Field(ge=0, le=10_000_000)] = 1_000
    """Questions answered by both and labelled before the first step; 0: no shadow. Only the champion's answers go out."""
    canary: Annotated[tuple[PercentText, ...], Field(strict=False, max_length=10), AfterValidator(_growing)] = (
        0.1,
        0.5,
    )
    """Share of entities that the challenger answers, step by step; empty: from the shadow to all at once."""
    step: Annotated[int, Field(ge=0, le=10_000_000)] = 500
    """Labelled questions a canary step lasts. Both score every question, so the comparison goes on through every step."""
    by: FieldName | None = None
    """Field of the asking event that says which entity it is about: one entity is answered by one model. Default: the asked
    stream's record key."""
    longest: PositiveDuration = 60 * DAY
    """A trial without an end by then is rejected: labels do not come, and nothing else may be tried meanwhile. Time in which
    inputs were broken does not count."""
    watch: Duration = 2 * DAY
    """How long after promotion the champion before it is scored beside it, ready to come back; 0s: not at all. Time
    in which inputs were broken does not count. The next trial ends it: let `retrain.warm_up` be as long to keep trials away."""
    tolerance: Annotated[ShareText, Field(ge=0, le=1)] = 0.0
    """How much worse than the champion, as a share of its loss, the challenger may be at the end of a step: 2% or 0.02."""
    error_rate: PercentText = 0.05
    """Chance that chance alone ends a trial of two equally good models, however often one looks."""
    guards: Guards = Guards()
