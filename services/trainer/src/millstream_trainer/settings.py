"""Every knob of the trainer, with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from millstream.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings of one dispatcher. There is one per project: it is the only writer of `millstream-models`."""

    lake: str = "lake"
    """Folder or `s3://bucket/prefix` of the Delta tables that features keeps; credentials as `AWS_…` variables."""
    packages: str = "packages"
    """Folder where finished model packages go; serving and drift read it."""
    mlflow: str | None = None
    """Tracking server (http) or store URI. Empty: runs are not tracked, everything else is the same."""
    data: Path = Path("data/trainer")
    """The trainer's own folder: compiled Feast registries of its runs."""

    train_threads: Annotated[int, Field(ge=1, le=256)] = 2
    """Of the fit and of scoring. The result does not depend on it."""
    run_timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds until a run is ended and counts as failed. Ten times what 300,000 rows take on two busy cores."""
    lake_patience: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that a run waits for the lake to hold what the streams held when it began; the lake lags by seconds."""
    mlflow_patience: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that a run may take to be written down after its answer: a tracking server that restarts is back by then.
    Nobody waits for it; afterwards the record stays incomplete."""
    model_hosts: str = ""
    """Hosts whose models may be registered, with a port or for all ports: `triton.models.svc:8000,10.0.0.5`. Empty: none.
    serving needs the same."""
    warm: bool = True
    """Start the fork server at once: it imports Feast, MLflow and LightGBM once, 5 to 10 s that no run then pays."""
