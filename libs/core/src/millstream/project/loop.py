"""A loop: one model and everything that keeps it good, as one file of `loops/` says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from millstream.contracts.times import DAY, SECOND
from millstream.project.duration import PositiveDuration
from millstream.project.expression import LabelValue, compile_label
from millstream.project.fields import text_of
from millstream.project.model import Model
from millstream.project.names import STRICT, FieldName, Name
from millstream.project.phrases import Budget, BudgetText, Confirm, ConfirmText, PercentText
from millstream.project.problem import Fault
from millstream.project.words import AllOr, OneOrMore

Trigger = Literal["drift", "performance", "schedule", "manual"]
TRIGGERS: tuple[Trigger, ...] = ("drift", "performance", "schedule", "manual")

WhenStale = Literal["wait", "flag", "refuse"]

ExpressionText = Annotated[
    LabelValue,
    BeforeValidator(compile_label),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["arr_delay >= 15"]}),
]


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

    def id_of(self, event: Mapping[str, Any]) -> str:
        """Id of the question. Raises RejectEvent(`missing_field`). Only on loops of a loaded project: it sets the default."""
        if self.id is None:
            raise ValueError("this loop was not read with load_project, which fills predict.id in")
        return text_of(event, self.id)


class Label(BaseModel):
    """What turned out to be true, and how it finds its question."""

    model_config = STRICT

    stream: Annotated[Name, Field(alias="from")]
    """Stream whose events carry the outcome."""
    by: FieldName
    """Field that question and outcome share."""
    value: ExpressionText
    """The label as an expression over the outcome's fields; null means that this event carries none."""
    within: PositiveDuration
    """How long after the question was known its outcome may be known. What is later is counted, not learned."""

    def key_of(self, event: Mapping[str, Any]) -> str:
        """What joins a question with its outcome; for events of either stream. Raises RejectEvent(`missing_field`)."""
        return text_of(event, self.by)


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


class Gate(BaseModel):
    """What a challenger has to show before it serves."""

    model_config = STRICT

    metric: Literal["log_loss"] = "log_loss"
    """A proper score: honest probabilities win. AUC would not see a model that is always too sure."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How much worse, as a share of the champion's loss, still passes. Newer data at equal loss is often worth having."""


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


class Retrain(BaseModel):
    """How often the loop may learn again, and whose word it takes."""

    model_config = STRICT

    cooldown: PositiveDuration = 3 * DAY
    """Two retrains inside one label delay learn the same data twice."""
    budget: BudgetText = Budget(runs=4, period=30 * DAY)
    """A drift that retraining does not cure must not train for ever."""
    on: OneOrMore[Trigger] = TRIGGERS
    """Causes that start a run; the first model needs none of them."""


class Loop(BaseModel):
    """One file of `loops/`."""

    model_config = STRICT

    loop: Name
    """Name of the loop: the key of its records, the label of its metrics, the address of its predictions."""
    description: Annotated[str, Field(max_length=2000)] = ""
    predict: Predict
    label: Label
    model: Model = Model()
    train: Train = Train()
    gate: Gate = Gate()
    drift: Drift = Drift()
    retrain: Retrain = Retrain()

    @property
    def name(self) -> str:
        return self.loop

    def faults(self) -> list[Fault]:
        """What does not add up between its values, each of which is fine by itself. `load_project` refuses it."""
        return [*self._train_faults(), *self._schedule_faults(), *self._label_faults()]

    def _train_faults(self) -> list[Fault]:
        path, history = ("train", "holdout"), self.train.history
        if history is None or history > self.train.holdout:
            return []
        message = "the holdout takes the whole history, nothing is left to fit"
        remedy = "write a holdout shorter than train.history"
        return [Fault(path=path, message=message, remedy=remedy, rests_on=(path, ("train", "history")))]

    def _schedule_faults(self) -> list[Fault]:
        scheduled, heard = self.train.schedule, "schedule" in self.retrain.on
        path, on, cooldown = ("train", "schedule"), ("retrain", "on"), ("retrain", "cooldown")
        faults = []
        if scheduled is None and heard and "on" in self.retrain.model_fields_set:
            remedy = "write train.schedule, like 30d, or remove it"
            faults.append(Fault(path=on, message="'schedule' without one", remedy=remedy, rests_on=(on, path)))
        if scheduled is not None and not heard:
            message = "a schedule that retrain.on does not listen to"
            remedy = "add schedule to retrain.on, or remove it"
            faults.append(Fault(path=path, message=message, remedy=remedy, rests_on=(path, on)))
        if scheduled is not None and scheduled < self.retrain.cooldown:
            message = "shorter than retrain.cooldown, so most scheduled runs would be declined"
            remedy = "write a longer one, or a shorter cooldown"
            faults.append(Fault(path=path, message=message, remedy=remedy, rests_on=(path, cooldown)))
        return faults

    def _label_faults(self) -> list[Fault]:
        if self.label.value.kind != "number":
            return []
        message = f"{self.label.value.text!r} is a number, and task binary learns true or false"
        return [Fault(path=("label", "value"), message=message, remedy="compare it, like arr_delay >= 15")]


UNREAD_LOOP: dict[str, Any] = {
    "loop": "millstream-unread",
    "predict": {"on": "millstream-unread", "features": "unread", "inputs": ["unread"]},
    "label": {"from": "millstream-unread", "by": "unread", "value": "unread", "within": "1d"},
}
"""Stand for required values that cannot be read, so that the rest can be judged. No stream may have such a name."""
