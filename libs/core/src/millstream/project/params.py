"""Parameters of the estimators, by the libraries' own names. A name that is not here is refused: a library would ignore a typo.

Objective, metric, seed, threads and determinism are set by the trainer, so that the same data give the same model.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from millstream.project.names import STRICT

Patience = Annotated[int, Field(ge=0, le=1000)]
Rounds = Annotated[int, Field(ge=1, le=10_000)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
Share = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=0, le=1e6)]


class Growing(BaseModel):
    """What learns in rounds: it can stop early, and it can go on from where the champion stands."""

    model_config = STRICT
    unit: ClassVar[str] = "rounds"
    """What the parameters call a round."""

    early_stopping: Patience = 0
    """Stop when so many rounds have not made the validation slice better, and keep the best number; 0: never."""
    warm_start: bool = False
    """Go on from the champion's own model where it fits: the same estimator, features, classes and label, and rows that it has
    not learned to be judged on. Else from scratch, and the run says why."""

    @property
    def begun(self) -> int:
        """Rounds of a fit from scratch."""
        return int(getattr(self, self.unit))

    @property
    def added(self) -> int:
        """Rounds of a warm start."""
        return int(getattr(self, f"warm_{self.unit}"))

    @property
    def most(self) -> int:
        """Rounds in all, after which a fit is from scratch."""
        return int(getattr(self, f"max_{self.unit}"))

    def settled(self, rounds: int, *, warm: bool) -> Self:
        """With exactly so many rounds: of a warm start those it adds."""
        return self.model_copy(update={f"warm_{self.unit}" if warm else self.unit: rounds, "early_stopping": 0})

    def cold(self) -> Self:
        """The same from scratch; what only a warm start obeys is as if nobody had written it."""
        fields = type(self).model_fields
        without = {name: fields[name].default for name in (f"warm_{self.unit}", f"max_{self.unit}")}
        return self.model_copy(update={"warm_start": False, **without})


class Trees(Growing):
    """What boosted trees have in common."""

    rounds: Rounds = 200
    """Trees: more of them ask for a smaller learning_rate."""
    warm_rounds: Rounds = 50
    """Trees that a warm start adds: most of what is known stands already."""
    max_rounds: Rounds = 1000
    """Trees in all. A warm start that would pass them is from scratch: old trees are never taken back, they slow every answer,
    and the categories are those of the first fit."""

    def booster(self) -> dict[str, int | float]:
        """What the library's `train` takes as params; rounds are told apart."""
        values: dict[str, int | float] = self.model_dump(exclude=set(Trees.model_fields))
        return values


class LightgbmParams(Trees):
    """Trees by LightGBM: takes missing values and categories as they are, fits 300,000 rows in seconds."""

    num_leaves: Annotated[int, Field(ge=2, le=4096)] = 31
    """LightGBM's default; more leaves learn rarer combinations and overfit sooner."""
    learning_rate: Share = 0.05
    """Half of LightGBM's default, which suits 200 trees."""
    min_data_in_leaf: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Higher than LightGBM's 20: on a stream the rare leaf is what has changed next month."""
    max_depth: Annotated[int, Field(ge=-1, le=64)] = -1
    """-1: the leaves alone are the limit."""
    feature_fraction: Share = 1.0
    """Share of columns each tree may see."""
    bagging_fraction: Share = 1.0
    """Share of rows each tree may see; takes effect with bagging_freq."""
    bagging_freq: Annotated[int, Field(ge=0, le=1000)] = 0
    """Draw rows anew every so many trees; 0: never."""
    lambda_l1: Penalty = 0.0
    """Penalty on leaf values that drives small ones to zero."""
    lambda_l2: Penalty = 0.0
    """Penalty on leaf values that shrinks them all."""
    min_gain_to_split: Penalty = 0.0
    """A split that gains less is not made."""
    max_bin: Annotated[int, Field(ge=2, le=65_535)] = 255
    """Steps that a numeric column is cut into; fewer are faster and coarser."""
    cat_smooth: Penalty = 10.0
    """Shrinks rare categories towards the rest."""
    cat_l2: Penalty = 10.0
    """Penalty on splits by category, on top of lambda_l2."""


class XgboostParams(Trees):
    """Trees by XGBoost: takes missing values as they are; each of the 50 most frequent categories is a column."""

    learning_rate: Share = 0.1
    """A third of XGBoost's default, which suits 200 trees."""
    max_depth: Annotated[int, Field(ge=1, le=16)] = 6
    """Levels of a tree; XGBoost's default."""
    min_child_weight: Penalty = 10.0
    """Weight of the rows in a leaf, above XGBoost's 1: on a stream the rare leaf is what has changed next month."""
    subsample: Share = 1.0
    """Share of rows each tree may see."""
    colsample_bytree: Share = 1.0
    """Share of columns each tree may see."""
    reg_alpha: Penalty = 0.0
    """Penalty on leaf values that drives small ones to zero."""
    reg_lambda: Penalty = 1.0
    """Penalty on leaf values that shrinks them all; XGBoost's default."""
    gamma: Penalty = 0.0
    """A split that gains less is not made."""
    max_bin: Annotated[int, Field(ge=2, le=65_535)] = 256
    """Steps that a numeric column is cut into; fewer are faster and coarser."""


class LinearParams(BaseModel):
    """A line by scikit-learn: logistic regression, or ridge regression for numbers. Columns are standardized before."""

    model_config = STRICT

    C: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Inverse strength of the L2 penalty, scikit-learn's default; ridge regression takes 1/C."""
    max_iter: Annotated[int, Field(ge=10, le=10_000)] = 300
    """Steps of the solver; standardized columns take some tens."""


class ForestParams(BaseModel):
    """Trees side by side by scikit-learn. A graph grows with trees and leaves: look at the gate's package_size."""

    model_config = STRICT

    n_estimators: Annotated[int, Field(ge=1, le=1000)] = 100
    """Trees; scikit-learn's default."""
    max_depth: Annotated[int, Field(ge=1, le=64)] = 12
    """Levels of a tree: 4,096 leaves. Without a bound a forest of 300,000 rows takes a gigabyte."""
    min_samples_leaf: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Rows of a leaf: fewer make probabilities of 0 and 1 that nobody has seen often enough."""
    max_features: Share = 0.3
    """Share of the columns that a split may choose from: about what a square root gives for ten."""


class TorchFit(Growing):
    """How a PyTorch module is fitted: AdamW on shuffled batches."""

    unit = "epochs"

    epochs: Epochs = 20
    """Passes over the rows."""
    warm_epochs: Epochs = 5
    """Passes of a warm start."""
    max_epochs: Epochs = 200
    """Passes in all. A warm start that would pass them is from scratch: the scales and categories are those of the first fit,
    and weights that were moved for long learn new things worse."""
    learning_rate: Share = 0.001
    """AdamW's default."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 512
    """Rows of one step: some hundred are quick on a CPU and still make many steps."""
    weight_decay: Penalty = 0.01
    """Pulls weights towards zero; AdamW's default."""


class TorchParams(TorchFit):
    """A multilayer perceptron by PyTorch: columns are standardized, and that a value is missing is a column of its own."""

    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(strict=False, max_length=10)] = (64, 32)
    """Units of each layer between the columns and the answer; none: a line."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a layer's units that a step leaves out."""


class OwnParams(BaseModel):
    """Parameters of an estimator of your own, handed to your function as they are: it must refuse what it does not know."""

    model_config = ConfigDict(**{**STRICT, "extra": "allow"})

    fit: TorchFit | None = None
    """How the trainer fits a PyTorch module of yours. It is not handed to your function; left out: the defaults."""

    def given(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Params = LightgbmParams | XgboostParams | LinearParams | ForestParams | TorchParams | OwnParams


def growing(params: Params) -> Growing | None:
    """The part of `params` that tells of rounds; None of what has none."""
    if isinstance(params, OwnParams):
        return params.fit
    return params if isinstance(params, Growing) else None


def regrown(params: Params, growth: Growing) -> Params:
    """`params` with another such part."""
    if isinstance(params, OwnParams):
        return params.model_copy(update={"fit": growth})
    assert isinstance(growth, LightgbmParams | XgboostParams | TorchParams)
    return growth


BUILT_IN: dict[str, type[BaseModel]] = {
    "lightgbm": LightgbmParams,
    "xgboost": XgboostParams,
    "linear": LinearParams,
    "forest": ForestParams,
    "torch": TorchParams,
}
"""The estimators that come along, each with what it takes."""
ANEW = {
    "linear": "linear has one best answer, which its solver finds from any start",
    "forest": "the trees of a forest stand side by side, and more of them are no newer",
}
"""Estimators without a warm start, and why."""
