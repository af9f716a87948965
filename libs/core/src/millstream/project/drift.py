"""When a loop is no longer what it was: its inputs, its performance, its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from millstream.contracts.tasks import Task
from millstream.project import duration
from millstream.project.duration import PositiveDuration
from millstream.project.names import STRICT, FieldName
from millstream.project.phrases import Confirm, ConfirmText, PercentText
from millstream.project.problem import Fault
from millstream.project.words import AllOr, OneOrMore, UpToFive

_TASK = ("model", "task")
FEWEST_LABELS = 500
"""Of a window that answers are calibrated on, for an estimate: ten bins of 50."""
FEWEST_ROWS, MOST_ROWS = 100, 1_000_000
"""Of a window by count: below it PSI is noise, above it memory goes for nothing."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A window that is as long as a stretch of stream time, whatever comes in it."""

    micros: int

    def __str__(self) -> str:
        return duration.to_text(self.micros)


def window_from_file(value: object) -> int | Span:
    """`5000` predictions, or `6h` of them. Raises ValueError with what to write."""
    if isinstance(value, str):
        try:
            micros = duration.from_text(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no window; write predictions, like 5000, or a duration, like 6h") from error
        if not micros:
            raise ValueError(f"{value!r} is no stretch of time; write a longer one, like 6h")
        return Span(micros=micros)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r:.60} is no window; write predictions, like 5000, or a duration, like 6h")
    if value < FEWEST_ROWS:
        raise ValueError(f"{value} is out of range; write at least {FEWEST_ROWS}")
    if value > MOST_ROWS:
        raise ValueError(f"{value} is out of range; write at most {MOST_ROWS}")
    return value


WindowText = Annotated[
    int | Span,
    BeforeValidator(window_from_file),
    PlainSerializer(lambda window: window if isinstance(window, int) else str(window)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": FEWEST_ROWS, "maximum": MOST_ROWS},
                {"type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2},
            ],
            "examples": [5000, "6h"],
        }
    ),
]


_A_LIST: TypeAdapter[tuple[str, ...]] = TypeAdapter(OneOrMore[str])


def _columns_from_file(value: object, _: ValidatorFunctionWrapHandler) -> tuple[str, ...] | Literal["important"]:
    """A word or a list: told apart here, so that a slip in one is not also told as one in the other."""
    if value == "important":
        return "important"
    if isinstance(value, str):
        raise ValueError(f"unknown {value!r:.60}; write all, important, or a list of columns")
    return _A_LIST.validate_python(value)


ColumnsText = Annotated[Literal["important"] | OneOrMore[str], WrapValidator(_columns_from_file)]


class Performance(BaseModel):
    """When matured labels say that the model got worse."""

    model_config = STRICT

    metric: Literal["log_loss", "squared_error"] | None = None
    """The task's own, as at the gate, which is the default: what is watched is what was promised."""
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

    window: WindowText = 5_000
    """Predictions a window, or a stretch of stream time like 6h (judged with the next one where it has fewer than 100). PSI's
    noise is about bins / rows: 10 / 5,000 = 0.002, far below the threshold."""
    columns: AllOr[ColumnsText] = None  # in code None is all
    """`all`, `important` (those that hold nine tenths of the importance, at least three), or the inputs and
    features to watch. Columns count by their importance to the model anyway."""
    psi: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Population stability index that is a drift. 0.1 is small, 0.25 large in the usual reading. It is a mean by
    importance, in which a column counts as ten times this at most."""
    text: UpToFive[FieldName] = ()
    """Texts of the asking event to watch, like [comment]. No model reads them: a classifier is asked whether it can tell a
    window's from those that the model was trained among."""
    embedding: UpToFive[FieldName] = ()
    """The same for vectors: lists of at most 1,024 numbers."""
    auc: Annotated[float, Field(gt=0.5, lt=1)] = 0.55
    """ROC AUC of that classifier that is a drift, when the whole 95 % interval is above it. 0.5 is chance; 0.55 is that one row
    in ten can be told by its content."""
    confirm: ConfirmText = Confirm(agree=2, windows=3)
    """One odd window is weather; two of three are a change."""
    performance: Performance = Performance()
    estimate: bool = False
    """Whether performance is estimated before the labels are there, where label.within is longer than a window lasts: from the
    answers' own chances, or of numbers from where on the holdout the model was more wrong than elsewhere. It cannot see that
    questions mean something else than before."""
    report_every: PositiveDuration | None = None
    """Draw an Evidently report this often even when nothing is suspected; null: on suspicion alone."""
    skew: Skew = Skew()

    @property
    def content(self) -> tuple[str, ...]:
        """Fields of the asking event that are watched as they are: texts first, then embeddings."""
        return (*self.text, *self.embedding)

    def faults(self, task: Task) -> list[Fault]:
        """What does not fit the task of the loop, or could never be published."""
        return [*self._metric_faults(task), *self._estimate_faults(task), *self._content_faults()]

    def _content_faults(self) -> list[Fault]:
        path = ("drift", "embedding")
        return [
            Fault(path=(*path, n), message=f"{name!r} is in drift.text too", remedy="name it once", rests_on=(path,))
            for n, name in enumerate(self.embedding)
            if name in self.text
        ]

    def _metric_faults(self, task: Task) -> list[Fault]:
        metric = "squared_error" if task is Task.REGRESSION else "log_loss"
        if self.performance.metric in (None, metric):
            return []
        path, message = ("drift", "performance", "metric"), f"task {task} is judged by {metric}"
        return [Fault(path=path, message=message, remedy=f"write {metric}, or remove it", rests_on=(path, _TASK))]

    def _estimate_faults(self, task: Task) -> list[Fault]:
        path, rows = ("drift", "estimate"), self.window
        calibrates = self.estimate and task is not Task.REGRESSION
        if calibrates and isinstance(rows, int) and rows < FEWEST_LABELS:
            message = f"{rows} labels a window are too few to calibrate the answers on"
            remedy = f"write a drift.window of at least {FEWEST_LABELS}, or remove estimate"
            return [Fault(path=path, message=message, remedy=remedy, rests_on=(path, ("drift", "window")))]
        return []
