"""When a loop may learn again, and whose word it takes."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from millstream.contracts.quiet import Quiet
from millstream.contracts.times import DAY
from millstream.project.duration import Duration, PositiveDuration
from millstream.project.names import STRICT
from millstream.project.phrases import Budget, BudgetText, PercentText
from millstream.project.problem import Fault
from millstream.project.quiet import QuietTexts, ZoneText
from millstream.project.words import OneOrMore

Trigger = Literal["drift", "performance", "estimate", "schedule", "labels", "alert", "system", "manual"]
TRIGGERS: tuple[Trigger, ...] = ("drift", "performance", "schedule", "labels", "alert", "system", "manual")
"""All but `estimate`: a drop that labels have not shown yet is a guess, and who acts on guesses says so."""


class NewLabels(BaseModel):
    """How many new labels are worth a run; one of the two."""

    model_config = STRICT

    grow: Annotated[PercentText, Field(gt=0)] | None = None
    """More than at the last run, as a share of those: `20%`."""
    rows: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """More than at the last run, as a number."""


class Mature(BaseModel):
    """What a verdict on drift waits for: without labels of the new days a run would learn the old ones again."""

    model_config = STRICT

    rows: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """Labels that matured since the window closed."""
    longest: PositiveDuration = 14 * DAY
    """After that the request is declined: labels do not come, and others would wait behind it for ever."""


class Retrain(BaseModel):
    """How often the loop may learn again, and whose word it takes."""

    model_config = STRICT

    mode: Literal["auto", "approve", "suggest"] = "auto"
    """`approve`: a person says go to each run; `suggest`: it is only said that one is due. What a person
    asks for runs in any mode."""
    expires: PositiveDuration = 2 * DAY
    """In mode `approve`: a run that nobody approved by then is dropped; the next request asks anew."""
    cooldown: PositiveDuration = 3 * DAY
    """Two retrains inside one label delay learn the same data twice."""
    budget: BudgetText = Budget(runs=4, period=30 * DAY)
    """A drift that retraining does not cure must not train for ever. A run that failed is counted against machines alone, and
    until a later one has not failed."""
    warm_up: Duration = 0
    """After a promotion nothing but a person starts a run for so long: windows still hold days of the model before."""
    breaker: Annotated[int, Field(ge=1, le=100)] = 3
    """One challenger rejected or rolled back is a bad week, three in a row a loop that a retrain does not cure: a
    person looks."""
    on: OneOrMore[Trigger] = TRIGGERS
    """Causes that start a run; the first model needs none of them."""
    agree: Annotated[int, Field(ge=1, le=7)] = 1
    """Different causes that must have asked within `within` before a run starts: 1 is any of `on`, 2 any two. A person
    is enough."""
    within: PositiveDuration = 7 * DAY
    """How far apart causes may ask and still agree."""
    labels: NewLabels | None = None
    """New labels since the last run that are a cause by themselves; null: none are."""
    mature: Mature | None = None
    """Labels that drift waits for; null: it does not wait."""
    quiet: QuietTexts = ()
    """Hours of the day in which no run starts by itself: a request waits for their end. Stream time."""
    time_zone: ZoneText = "UTC"
    """Of the quiet hours."""

    def rests(self) -> Quiet:
        """`quiet` as moments of stream time."""
        return Quiet(hours=tuple((one.begin, one.end) for one in self.quiet), zone=ZoneInfo(self.time_zone))

    def faults(self) -> list[Fault]:
        """What does not add up between these values."""
        path, on = ("retrain", "labels"), ("retrain", "on")
        heard, faults = "labels" in self.on, []
        if self.labels is not None and (self.labels.grow is None) == (self.labels.rows is None):
            remedy = "write one, like {grow: 20%} or {rows: 20000}"
            faults.append(Fault(path=path, message="needs either grow or rows", remedy=remedy))
        if self.labels is None and heard and "on" in self.model_fields_set:
            remedy = "write retrain.labels, like {grow: 20%}, or remove it"
            faults.append(
                Fault(path=on, message="'labels' without a number of them", remedy=remedy, rests_on=(on, path))
            )
        if self.labels is not None and not heard:
            remedy = "add labels to retrain.on, or remove it"
            message = "new labels that retrain.on does not listen to"
            faults.append(Fault(path=path, message=message, remedy=remedy, rests_on=(path, on)))
        machines = len(set(self.on) - {"manual"})
        if self.agree > max(1, machines):
            agree = ("retrain", "agree")
            message = f"{self.agree} causes can never agree, retrain.on lists {machines} besides manual"
            faults.append(Fault(path=agree, message=message, remedy="write a smaller number", rests_on=(agree, on)))
        return faults
