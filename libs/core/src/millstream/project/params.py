"""Parameters of the estimators, by the libraries' own names. A name that is not here is refused: a library would ignore a typo.

Objective, metric, seed, threads and determinism are set by the trainer, so that the same data give the same model.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from millstream.project.names import STRICT

Patience = Annotated[int, Field(ge=0, le=1000)]
Rounds = Annotated[int, Field(ge=1, le=10_000)]
Share = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=0, le=1e6)]


class LightgbmParams(BaseModel):
    """Trees by LightGBM: takes missing values and categories as they are, fits 300,000 rows in seconds."""

    model_config = STRICT

    rounds: Rounds = 200
    """Trees: more of them ask for a smaller learning_rate."""
    early_stopping: Patience = 0
    """Stop when so many trees have not made the validation slice better, and keep the best number; 0: never."""
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

    def booster(self) -> dict[str, int | float]:
        """What `lightgbm.train` takes as params; `rounds` is its num_boost_round."""
        values: dict[str, int | float] = self.model_dump(exclude={"rounds", "early_stopping"})
        return values


class XgboostParams(BaseModel):
    """Trees by XGBoost: takes missing values as they are; each of the 50 most frequent categories is a column."""

    model_config = STRICT

    rounds: Rounds = 200
    """Trees: more of them ask for a smaller learning_rate."""
    early_stopping: Patience = 0
    """Stop when so many trees have not made the validation slice better, and keep the best number; 0: never."""
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

    def booster(self) -> dict[str, int | float]:
        """What `xgboost.train` takes as params; `rounds` is its num_boost_round."""
        values: dict[str, int | float] = self.model_dump(exclude={"rounds", "early_stopping"})
        return values


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


class OwnParams(BaseModel):
    """Parameters of an estimator of your own, handed to your function as they are: it must refuse what it does not know."""

    model_config = ConfigDict(**{**STRICT, "extra": "allow"})

    def given(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Params = LightgbmParams | XgboostParams | LinearParams | ForestParams | OwnParams

BUILT_IN: dict[str, type[BaseModel]] = {
    "lightgbm": LightgbmParams,
    "xgboost": XgboostParams,
    "linear": LinearParams,
    "forest": ForestParams,
}
"""The estimators that come along, each with what it takes."""
