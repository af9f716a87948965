"""A loop: one model and everything that keeps it good, as one file of `loops/` says it. Each section has a file of its name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from millstream.contracts.tasks import Task, metric_of
from millstream.project.drift import Drift
from millstream.project.duration import to_text as duration_to_text
from millstream.project.gate import Gate
from millstream.project.history import span_to_text
from millstream.project.label import Label
from millstream.project.model import Model
from millstream.project.names import STRICT, Name
from millstream.project.phrases import percent_to_text
from millstream.project.predict import Predict
from millstream.project.problem import Fault, Path, nearest
from millstream.project.retrain import Retrain
from millstream.project.rollout import Rollout
from millstream.project.train import Train


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
    rollout: Rollout = Rollout()
    drift: Drift = Drift()
    retrain: Retrain = Retrain()

    @property
    def name(self) -> str:
        return self.loop

    def faults(self) -> list[Fault]:
        """What does not add up between its values, each of which is fine by itself. `load_project` refuses it."""
        return [
            *self._train_faults(),
            *self._schedule_faults(),
            *self._label_faults(),
            *self._trial_faults(),
            *self._gate_faults(),
            *self.model.faults(),
            *self.drift.faults(self.model.task),
            *self.retrain.faults(),
        ]

    def _train_faults(self) -> list[Fault]:
        path = ("train", "holdout")
        if all(isinstance(span, str) or span > self.train.holdout for span in self.train.history):
            return self._history_faults()
        message = "the holdout takes the whole history, nothing is left to fit"
        remedy = "write a holdout shorter than train.history"
        return [Fault(path=path, message=message, remedy=remedy, rests_on=(path, ("train", "history")))]

    def _history_faults(self) -> list[Fault]:
        """Histories that have no row before the oldest validation slice, in any run."""
        holdout, histories = self.train.holdout, self.train.history
        if len(histories) == 1 and not self.model.chooses:
            return []
        least = holdout * (1 + self.train.folds)
        faults = []
        for position, span in enumerate(histories):
            if isinstance(span, str) or span > least:
                continue
            path: Path = ("train", "history") if len(histories) == 1 else ("train", "history", position)
            slices = "slice" if self.train.folds == 1 else f"{self.train.folds} slices"
            message = (
                f"{span_to_text(span)} can never compete: the holdout and the validation {slices} before it, each "
                f"{duration_to_text(holdout)}, take {duration_to_text(least)}"
            )
            remedy = (
                f"write a history longer than {duration_to_text(least)}, a shorter train.holdout or fewer train.folds"
            )
            rests_on = (path, ("train", "holdout"), ("train", "folds"), ("model",))
            faults.append(Fault(path=path, message=message, remedy=remedy, rests_on=rests_on))
        return faults

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
        """A label that is computed tells by itself what it is; of a field's type only its stream knows."""
        text, kind, task = self.label.value.text, self.label.value.kind, self.model.task
        if kind == "any" or kind == _LEARNS[task]:
            return []
        found = {"number": "a number", "truth": "true or false"}[kind]
        message = f"{text!r} is {found}, and task {task} learns {LEARNED[task]}"
        path = ("label", "value")
        return [Fault(path=path, message=message, remedy=REMEDY[task], rests_on=(path, ("model", "task")))]

    def _trial_faults(self) -> list[Fault]:
        """Error rates at which nothing or everything is decided."""
        if 0.0001 <= self.rollout.error_rate <= 0.5:
            return []
        message = f"{percent_to_text(self.rollout.error_rate)} would decide nothing, or anything"
        return [Fault(path=("rollout", "error_rate"), message=message, remedy="write 0.01% to 50%; 5% is usual")]

    def _gate_faults(self) -> list[Fault]:
        faults, metric = [], metric_of(self.model.task)
        if self.gate.metric not in (None, metric):
            rests_on = (("gate", "metric"), ("model", "task"))
            message, remedy = f"task {self.model.task} is judged by {metric}", f"write {metric}, or remove it"
            faults.append(Fault(path=("gate", "metric"), message=message, remedy=remedy, rests_on=rests_on))
        for position, name in enumerate(self.gate.slices):
            if name not in self.predict.inputs:
                path = ("gate", "slices", position)
                message, remedy = f"{name!r} is no input", nearest(name, self.predict.inputs)
                faults.append(Fault(path=path, message=message, remedy=remedy, rests_on=(path, ("predict", "inputs"))))
        return faults


_LEARNS = {Task.BINARY: "truth", Task.MULTICLASS: "text", Task.REGRESSION: "number"}
LEARNED = {Task.BINARY: "true or false", Task.MULTICLASS: "a text", Task.REGRESSION: "a number"}
REMEDY = {
    Task.BINARY: "compare it, like arr_delay >= 15",
    Task.MULTICLASS: "name a field that holds the class, like weather",
    Task.REGRESSION: "name a number, like arr_delay",
}


UNREAD_LOOP: dict[str, Any] = {
    "loop": "millstream-unread",
    "predict": {"on": "millstream-unread", "features": "unread", "inputs": ["unread"]},
    "label": {"from": "millstream-unread", "by": "unread", "value": "unread", "within": "1d"},
}
"""Stand for required values that cannot be read, so that the rest can be judged. No stream may have such a name."""
