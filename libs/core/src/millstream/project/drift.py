"""When a loop is no longer what it was: its inputs, its performance, its features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from millstream.project.names import STRICT
from millstream.project.phrases import Confirm, ConfirmText, PercentText
from millstream.project.words import AllOr, OneOrMore


class Performance(BaseModel):
    """When matured labels say that the model got worse."""

    model_config = STRICT

    metric: Literal["log_loss"] = "log_loss"
    """The gate's metric: what is watched is what was promised."""
    drop: PercentText = 0.05
    """Relative to the holdout's loss. A year without retraining costs 4% on the flights, so 5% in one window is trouble."""


class Skew(BaseModel):
    """When the features that the model was given are not those that it learns from."""

    model_config = STRICT

    sample: Annotated[int, Field(ge=0, le=6_000)] = 60
    """Predictions a minute whose features are computed again from the lake; 0: none. One a second is enough to see a share
    of 1% within minutes, and costs under 1% of a core."""
    bound: PercentText = 0.01
    """Share of the checked predictions that may differ. Live, a scorer now and then is some milliseconds ahead of an event
    that was known already; more than one in a hundred is a fault."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 1e-9
    """Relative difference above which two numbers differ: a sum's last digits depend on its order. Counts must be equal."""


class Drift(BaseModel):
    """When inputs no longer look like what the model learned from."""

    model_config = STRICT

    window: Annotated[int, Field(ge=100, le=1_000_000)] = 5_000
    """Predictions a window. PSI's noise is about bins / rows: 10 / 5,000 = 0.002, far below the threshold."""
    columns: AllOr[OneOrMore[str]] = None
    """`all` (None in code), or the inputs and features to watch. Columns count by their importance to the model anyway."""
    psi: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Population stability index that is a drift. 0.1 is small, 0.25 large in the usual reading."""
    confirm: ConfirmText = Confirm(agree=2, windows=3)
    """One odd window is weather; two of three are a change."""
    performance: Performance = Performance()
    skew: Skew = Skew()
