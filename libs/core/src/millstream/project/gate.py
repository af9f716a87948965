"""What a challenger has to show before it is tried on live questions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from millstream.project.names import STRICT, FieldName
from millstream.project.phrases import ShareText
from millstream.project.words import UpToFive


class Gate(BaseModel):
    """What a challenger has to show before it serves."""

    model_config = STRICT

    metric: Literal["log_loss", "squared_error"] | None = None
    """The task's own, which is the default: a proper score, honest answers win. AUC would not see a model that is always too
    sure."""
    tolerance: Annotated[ShareText, Field(ge=0, le=1)] = 0.0
    """How much worse, as a share of the champion's loss, still passes: 2% or 0.02. Newer data at equal loss is often worth
    having."""
    slices: UpToFive[FieldName] = ()
    """Inputs whose values are looked at one by one as well, like `[carrier]`: better on the whole may be worse for one of
    them. Each value divides the error rate, so name few, with few values."""
    slice_tolerance: Annotated[ShareText, Field(ge=0, le=1)] = 0.05
    """How much worse than the champion, as a share of its loss there, a slice may be before chance is counted. Slices are
    smaller than the whole, so they get more than `tolerance`."""
