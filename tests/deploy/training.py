"""What the chart renders for training, and what the trainer makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from millstream.contracts.events import Cause
from millstream_trainer.adapters.job_kinds import JOB, RAY_JOB, TRAIN_JOB, WORKFLOW
from millstream_trainer.adapters.job_template import JobTemplate
from millstream_trainer.domain.run import RunSpec

from .charts import Document, documents, of_kind, template

EVERYTHING = "everything-values.yaml"
SPEC = RunSpec(
    loop="parcel-delay",
    run="0123456789ab",
    attempt=1,
    version="1",
    at=datetime(2013, 3, 3, tzinfo=UTC),
    cause=Cause.FIRST_MODEL,
    request="labels-60",
    positions={"parcels-sent": {0: 41}},
    champion=None,
)


EXECUTORS = {"kubernetes": JOB, "trainjob": TRAIN_JOB, "rayjob": RAY_JOB, "workflow": WORKFLOW}
"""Of each value of training.executor that makes what stands for a run: what the trainer takes it for."""


def rendered(helm: Path, values: str, executor: str = "kubernetes") -> list[Document]:
    # An image that has Ray, for the one that wants it.
    image = ("training.image=registry.example/millstream/trainer-torch:7",) if executor == "rayjob" else ()
    return documents(template(helm, "trainer", values, f"training.executor={executor}", *image))


def config(found: list[Document]) -> Document:
    (one,) = (one for one in of_kind(found, "ConfigMap") if "job.yaml" in one["data"])
    return one


def job(found: list[Document], folder: Path) -> dict[str, Any]:
    """As the trainer makes it of the chart's template."""
    path = folder / "job.yaml"
    path.write_text(config(found)["data"]["job.yaml"])
    return JobTemplate.read(path, "/shared/packages").job(SPEC, 2760)
