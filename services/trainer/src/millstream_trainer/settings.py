"""Every knob of the trainer, with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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

    executor: Literal["process", "kubernetes", "keda"] = "process"
    """Where runs happen: processes beside the dispatcher, Jobs of Kubernetes, which go on while the dispatcher restarts, or
    pods that KEDA starts for the runs on `millstream-training-jobs`, where no service may make Jobs."""
    job_template: Path | None = None
    """Manifest of a Job, TrainJob, RayJob or Workflow as YAML; a run adds its name, labels, arguments and deadline. Needed with
    `kubernetes`; the chart writes one."""
    job_patience: Annotated[float, Field(gt=0)] = 900.0
    """Seconds that a Job may wait for a node and its image, then it is deleted. An autoscaler takes ten minutes for a GPU."""
    job_tries: Annotated[int, Field(ge=1, le=11)] = 3
    """With `keda`: pods that may take one run and end without a word, of memory for example, before it has failed."""
    kubeconfig: Path | None = None
    """How the API server is reached from outside of a cluster. Empty: by the token of the pod's ServiceAccount."""

    loop_configs: str = ""
    """ConfigMaps, as `namespace/name`, that the MillstreamLoops of the first one's namespace become: the pods mount one as the
    loops/ of their project. Empty: loops are the project's own files."""
    loop_restarts: str = ""
    """Deployments of that namespace whose pods start again with changed loops; the trainer's own comes last."""

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
