"""What most teams write: FastAPI, a pydantic model, a LightGBM booster."""

import os
from pathlib import Path

import lightgbm
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

booster = lightgbm.Booster(model_file=str(Path(os.environ["BENCH_MODEL"]) / "booster.txt"))
app = FastAPI()


class Row(BaseModel):
    features: list[float]


@app.post("/predict")
async def predict(row: Row):
    return {"probability": float(booster.predict(np.array([row.features]), num_threads=1)[0])}


@app.get("/readyz")
async def readyz():
    return {"ready": True}
