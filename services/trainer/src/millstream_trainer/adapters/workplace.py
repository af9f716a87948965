"""Where a training process finds what it needs: the part of the settings that travels with it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from millstream_trainer.settings import Settings


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
    instance: str = ""
    otlp_endpoint: str | None = None


def workplace_of(settings: Settings) -> Workplace:
    """The workplace that the settings of this process describe."""
    # Absolute: Feast reads a relative lake from where its feature_store.yaml lies, we from where we were started.
    lake = settings.lake if "://" in settings.lake else str(Path(settings.lake).absolute())
    return Workplace(
        project=str(settings.project.absolute()),
        lake=lake,
        packages=settings.packages,
        mlflow=settings.mlflow,
        data=str(settings.data.absolute()),
        threads=settings.train_threads,
        lake_patience=settings.lake_patience,
        mlflow_patience=settings.mlflow_patience,
        model_hosts=settings.model_hosts,
        log_level=settings.log_level,
        instance=settings.instance,
        otlp_endpoint=settings.otlp_endpoint,
    )
