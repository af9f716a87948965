"""A BentoML service of one worker."""

import os
from pathlib import Path

import bentoml
import lightgbm
import numpy as np


@bentoml.service(workers=1)
class Delays:
    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file=str(Path(os.environ["BENCH_MODEL"]) / "booster.txt"))

    @bentoml.api
    async def predict(self, features: list[float]) -> float:
        return float(self.booster.predict(np.array([features]), num_threads=1)[0])
