"""Where a training process finds what it needs: the part of the settings that travels with it."""

from __future__ import annotations

import msgspec


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """Given to every training process of a trainer; the run itself comes as a RunSpec."""

    project: str
    lake: str
    packages: str
    mlflow: str | None
    data: str
    threads: int
    lake_patience: float
    mlflow_patience: float
    model_hosts: str = ""
    log_level: str = "INFO"
