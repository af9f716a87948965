"""What is fitted: estimator, task and the parameters that we pass on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from millstream.contracts.tasks import Task
from millstream.contracts.times import MINUTE
from millstream.project.duration import PositiveDuration
from millstream.project.names import STRICT
from millstream.project.params import ANEW, BUILT_IN, LightgbmParams, OwnParams, Params, growing
from millstream.project.problem import Fault, Path, Refused, nearest
from millstream.project.reading import faults_of

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
MOST_SETTINGS = 20
"""Overrides in a file. Each is fitted on each history; a wider field is a search."""


def _estimator(text: object) -> object:
    if not isinstance(text, str) or text in BUILT_IN or _ENTRY.fullmatch(text):
        return text
    raise ValueError(
        f"unknown {text!r:.60}; {nearest(text, BUILT_IN)}, or a function of yours like mypackage.models:build"
    )


def _task(text: object) -> object:
    if text in list(Task):
        return Task(str(text))
    raise ValueError(f"unknown {text!r:.60}; {nearest(str(text), map(str, Task))}")


class Search(BaseModel):
    """Let Optuna look for better parameters, in a stated space around `params`."""

    model_config = STRICT

    trials: Annotated[int, Field(ge=1, le=1000)] = 20
    """Settings tried. Twenty find most of what there is to find in five parameters."""
    timeout: PositiveDuration = 10 * MINUTE
    """Of the clock. When time ends a search and not the trials, a repeat may find another model: the run says so."""


class Model(BaseModel):
    """The kind of model a loop learns."""

    model_config = STRICT

    estimator: Annotated[
        str, BeforeValidator(_estimator), Field(json_schema_extra={"examples": [*BUILT_IN, "mypackage.models:build"]})
    ] = "lightgbm"
    """`lightgbm`, `xgboost`, `linear`, `forest`, `torch`, or a function of yours as `mypackage.models:build`, from the
    project's folder or installed: `build(task, params, seed)` returns a scikit-learn estimator that skl2onnx can export, and
    `build(task, params, seed, inputs, outputs)` a PyTorch module. PyTorch comes with `millstream-trainer[torch]`."""
    task: Annotated[Task, BeforeValidator(_task)] = Task.BINARY
    """`binary`: the label is true or false, the answer its probability. `multiclass`: the label is a text, the answer a
    probability for each. `regression`: the label is a number, the answer its mean."""
    params: Annotated[Params, Field(validate_default=True)] = LightgbmParams()
    """Of the estimator, by its own names."""
    settings: Annotated[tuple[Params, ...], Field(strict=False, max_length=MOST_SETTINGS)] = ()
    """Each overrides some of `params`; all are fitted and the best on the validation slice is kept. Empty: `params` alone."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced`: rare classes count as much as frequent ones in the fit; the answers are corrected back to the true shares."""
    calibration: Literal["none", "sigmoid", "isotonic"] = "none"
    """Corrects probabilities by what the validation slice says, inside the graph. `isotonic` needs some thousand rows there."""
    search: Search | None = None
    """Left out: no search."""

    @field_validator("params", mode="before")
    @classmethod
    def _params(cls, value: object, info: ValidationInfo) -> object:
        return _params_of(value, info.data.get("estimator"))

    @field_validator("settings", mode="before")
    @classmethod
    def _settings(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple) or "params" not in info.data:
            return () if "params" not in info.data else value
        base = info.data["params"].model_dump(exclude_unset=True)
        found, faults = [], []
        for position, one in enumerate(value):
            try:
                over = {**base, **one} if isinstance(one, Mapping) else one
                found.append(_params_of(over, info.data.get("estimator")))
            except Refused as error:
                faults += [_under(fault, position) for fault in error.faults]
        if faults:
            raise Refused(faults)
        return tuple(found)

    def tried(self) -> tuple[Params, ...]:
        """The parameters that compete: `settings`, or `params` alone."""
        return self.settings or (self.params,)

    @property
    def chooses(self) -> bool:
        """Whether a run needs a validation slice even with one history: settings compete, or something is tuned or stopped."""
        growths = [growing(params) for params in self.tried()]
        stops = any(growth is not None and growth.early_stopping for growth in growths)
        return len(self.tried()) > 1 or self.search is not None or stops or self.calibration != "none"

    @property
    def goes_on(self) -> bool:
        """Whether any of them asks for a warm start."""
        return any(growth is not None and growth.warm_start for growth in map(growing, self.tried()))

    def faults(self) -> list[Fault]:
        """What does not go with the task."""
        faults = []
        for key in ("class_weight", "calibration"):
            if self.task is Task.REGRESSION and getattr(self, key) != "none":
                message, remedy = f"task regression has no {_OF[key]}", "remove it, or write another task"
                path = ("model", key)
                faults.append(Fault(path=path, message=message, remedy=remedy, rests_on=(path, ("model", "task"))))
        if self.search is not None and isinstance(self.params, OwnParams):
            message = "nothing is known of the parameters of your own estimator"
            path, remedy = ("model", "search"), "search inside it, or write settings"
            faults.append(Fault(path=path, message=message, remedy=remedy, rests_on=(path, ("model", "estimator"))))
        return [*faults, *self._warm_faults()]

    def _warm_faults(self) -> list[Fault]:
        """A limit on rounds under which no warm start could ever be."""
        faults = []
        places: list[tuple[Path, Params]] = [(("model", "settings", i), one) for i, one in enumerate(self.settings)]
        for place, params in places or [(("model", "params"), self.params)]:
            growth = growing(params)
            if growth is None or not growth.warm_start or growth.begun + growth.added <= growth.most:
                continue
            inside = (*place, "fit") if isinstance(params, OwnParams) else place
            unit, least = growth.unit, growth.begun + growth.added
            message = (
                f"max_{unit} is {growth.most}, {unit} and warm_{unit} together are {least}: nothing would ever be added"
            )
            remedy = f"write max_{unit}: {least} or more, or remove warm_start"
            rests_on = (inside, ("model", "params"))
            faults.append(Fault(path=(*inside, "warm_start"), message=message, remedy=remedy, rests_on=rests_on))
        return faults


_OF = {"class_weight": "classes to weigh", "calibration": "probabilities to correct"}


def _params_of(value: object, estimator: str | None) -> object:
    """`value` as the estimator's parameters. Raises Refused with a hint for each name it does not have."""
    kind = LightgbmParams if estimator is None else BUILT_IN.get(estimator, OwnParams)
    if isinstance(value, BaseModel):
        # The default is LightGBM's: of another estimator it is that one's own.
        value = value if isinstance(value, kind) else value.model_dump(exclude_unset=True)
    if estimator is None:
        return kind()  # nobody can judge parameters of an unknown estimator
    faults = []
    if estimator in ANEW and isinstance(value, Mapping) and "warm_start" in value:
        remedy = "remove it, or write estimator: lightgbm, xgboost or torch"
        faults.append(Fault(path=("warm_start",), message=f"{ANEW[estimator]}: it always starts anew", remedy=remedy))
        value = {name: one for name, one in value.items() if name != "warm_start"}
    try:
        params = kind.model_validate(value)
    except ValidationError as error:
        raise Refused([*faults, *faults_of(kind, value if isinstance(value, Mapping) else {}, error)]) from error
    if faults:
        raise Refused(faults)
    return params


def _under(fault: Fault, position: int) -> Fault:
    rests_on = None if fault.rests_on is None else tuple((position, *path) for path in fault.rests_on)
    hides = tuple((position, *path) for path in fault.hides)
    return Fault(
        path=(position, *fault.path), message=fault.message, remedy=fault.remedy, rests_on=rests_on, hides=hides
    )
