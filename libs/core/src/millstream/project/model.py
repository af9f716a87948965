"""What is fitted: estimator, task and the parameters that we pass on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from millstream.project.names import STRICT


class Params(BaseModel):
    """LightGBM's parameters by its own names. A name that is not here is refused: LightGBM would silently ignore a typo.

    Objective, metric, seed, threads and determinism are set by the trainer, so that the same data give the same model.
    """

    model_config = STRICT

    rounds: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Trees: more of them ask for a smaller learning_rate."""
    num_leaves: Annotated[int, Field(ge=2, le=4096)] = 31
    """LightGBM's default; more leaves learn rarer combinations and overfit sooner."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Half of LightGBM's default, which suits 200 trees."""
    min_data_in_leaf: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Higher than LightGBM's 20: on a stream the rare leaf is what has changed next month."""
    max_depth: Annotated[int, Field(ge=-1, le=64)] = -1
    """-1: the leaves alone are the limit."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of columns each tree may see."""
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of rows each tree may see; takes effect with bagging_freq."""
    bagging_freq: Annotated[int, Field(ge=0, le=1000)] = 0
    """Draw rows anew every so many trees; 0: never."""
    lambda_l1: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Penalty on leaf values that drives small ones to zero."""
    lambda_l2: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Penalty on leaf values that shrinks them all."""
    min_gain_to_split: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """A split that gains less is not made."""
    max_bin: Annotated[int, Field(ge=2, le=65_535)] = 255
    """Steps that a numeric column is cut into; fewer are faster and coarser."""
    cat_smooth: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    """Shrinks rare categories towards the rest."""
    cat_l2: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    """Penalty on splits by category, on top of lambda_l2."""

    def booster(self) -> dict[str, int | float]:
        """What `lightgbm.train` takes as params; `rounds` is its num_boost_round."""
        values: dict[str, int | float] = self.model_dump(exclude={"rounds"})
        return values


class Model(BaseModel):
    """The kind of model a loop learns."""

    model_config = STRICT

    estimator: Literal["lightgbm"] = "lightgbm"
    """Takes missing values and categories as they are, fits 300,000 rows in seconds, exports to ONNX."""
    task: Literal["binary"] = "binary"
    """The label is true or false, the answer its probability."""
    params: Params = Params()
