"""When a loop may learn again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from millstream.contracts.times import DAY
from millstream.project.duration import PositiveDuration
from millstream.project.names import STRICT
from millstream.project.phrases import Budget, BudgetText
from millstream.project.words import OneOrMore

Trigger = Literal["drift", "performance", "schedule", "manual"]
TRIGGERS: tuple[Trigger, ...] = ("drift", "performance", "schedule", "manual")


class Retrain(BaseModel):
    """How often the loop may learn again, and whose word it takes."""

    model_config = STRICT

    cooldown: PositiveDuration = 3 * DAY
    """Two retrains inside one label delay learn the same data twice."""
    budget: BudgetText = Budget(runs=4, period=30 * DAY)
    """A drift that retraining does not cure must not train for ever."""
    on: OneOrMore[Trigger] = TRIGGERS
    """Causes that start a run; the first model needs none of them."""
