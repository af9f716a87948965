"""Who sees a training run through: Kubernetes' own Job, or an object of Kubeflow, Ray or Argo that stands for one.

A run adds the same to each: its name, labels, arguments, and a deadline. Only where they stand differs, and that is this file.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millstream_trainer.adapters.training_job import FAILED, UNUSABLE

Manifest = dict[str, Any]
Path = tuple[str, ...]

HASHED = 17
"""Characters that a run adds to metadata.name: a dash and 16 of its hash."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way to ask a cluster for a run."""

    api: str
    """apiVersion of the manifest."""
    kind: str
    resource: str
    """As paths and Roles call it."""
    label: str
    """Of its pods. The value is its name."""
    longest: int
    """Characters that metadata.name of the object may have."""
    pod: Path | None
    """Where its pod's template stands in the manifest. None: in an object that the manifest names."""
    needed: tuple[Path, ...]
    """What else the manifest has to say."""
    told: tuple[Path, ...] = ()
    """What a run writes, beside the deadline: standing in the manifest it would not do what it says."""
    commanded: bool = True
    """Whether the container says what it runs."""
    stays: bool = False
    """Whether ended ones stay for ever, if nobody removes them."""
    tell: Callable[[Manifest, str, str], None]
    """Writes a run's name and spec, which become the last arguments of its command."""
    faults: Callable[[Mapping[str, Any]], Iterator[str]] = lambda manifest: iter(())
    """What it contradicts us in, with everything needed in it."""

    @property
    def path(self) -> str:
        return f"/apis/{self.api}"

    @property
    def group(self) -> str:
        return self.api.partition("/")[0]

    def fill(self, manifest: Manifest, name: str, labels: Mapping[str, str], told: str, deadline: float) -> None:
        """Make a copy of the manifest that of one run; `deadline` in seconds."""
        manifest["metadata"]["name"] = name
        manifest["spec"]["activeDeadlineSeconds"] = math.ceil(deadline)
        described = [manifest["metadata"]]
        if self.pod is not None:
            described.append(at(manifest, self.pod).setdefault("metadata", {}))
        for metadata in described:
            metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        self.tell(manifest, name, told)


def at(manifest: Any, path: Sequence[str]) -> Any:
    """What stands there, None where nothing does."""
    for part in path:
        manifest = manifest.get(part) if isinstance(manifest, Mapping) else None
    return manifest


def _tell_job(manifest: Manifest, name: str, told: str) -> None:
    manifest["spec"]["template"]["spec"]["containers"][0]["args"] = [name, told]


def _tell_train_job(manifest: Manifest, name: str, told: str) -> None:
    manifest["spec"]["trainer"] = {"args": [name, told]}


def _tell_ray_job(manifest: Manifest, name: str, told: str) -> None:
    spec = manifest["spec"]
    spec["entrypoint"] = f"{spec['entrypoint']} {shlex.join((name, told))}"  # Ray gives it to a shell
    # Its pods know the name of a cluster that is made anew for each try, and this of the run.
    spec["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]["millstream/job"] = name


def _tell_workflow(manifest: Manifest, name: str, told: str) -> None:
    parameters = [{"name": "name", "value": name}, {"name": "spec", "value": told}]
    manifest["spec"]["arguments"] = {"parameters": parameters}


def _ends_as_it_should(manifest: Mapping[str, Any]) -> Iterator[str]:
    ended = {code for rule in manifest["spec"]["podFailurePolicy"]["rules"] for code in _fails_at(rule)}
    if not ended >= {FAILED, UNUSABLE}:
        yield (
            f"spec.podFailurePolicy.rules has no FailJob for onExitCodes {FAILED} and {UNUSABLE}, by which a run says that "
            "another try would end as it did"
        )


def _fails_at(rule: Mapping[str, Any]) -> list[int]:
    codes: Mapping[str, Any] = rule.get("onExitCodes") or {}
    return list(codes.get("values") or []) if (rule.get("action"), codes.get("operator")) == ("FailJob", "In") else []


def _by_the_operator(manifest: Mapping[str, Any]) -> Iterator[str]:
    mode = manifest["spec"]["submissionMode"]
    if mode != "HTTPMode":
        yield f"spec.submissionMode is {mode}, and has to be HTTPMode: the others submit from a second pod or container"


JOB = Kind(
    api="batch/v1",
    kind="Job",
    resource="jobs",
    label="batch.kubernetes.io/job-name",
    longest=63,
    pod=("spec", "template"),
    needed=(
        ("spec", "backoffLimit"),
        ("spec", "ttlSecondsAfterFinished"),
        ("spec", "podFailurePolicy", "rules"),
    ),
    tell=_tell_job,
    faults=_ends_as_it_should,
)
TRAIN_JOB = Kind(
    api="trainer.kubeflow.org/v1alpha1",
    kind="TrainJob",
    resource="trainjobs",
    label="jobset.sigs.k8s.io/jobset-name",
    longest=47,  # JobSet calls a pod NAME-node-0-0-abcde, and that is a label of it
    pod=None,
    needed=(("spec", "runtimeRef", "name"), ("spec", "runtimeRef", "kind")),
    told=(("spec", "trainer"),),
    stays=True,
    tell=_tell_train_job,
)
RAY_JOB = Kind(
    api="ray.io/v1",
    kind="RayJob",
    resource="rayjobs",
    label="millstream/job",
    longest=47,
    pod=("spec", "rayClusterSpec", "headGroupSpec", "template"),
    needed=(
        ("spec", "entrypoint"),
        ("spec", "submissionMode"),
        ("spec", "backoffLimit"),
        ("spec", "shutdownAfterJobFinishes"),
    ),
    commanded=False,  # the container starts Ray, and Ray the entry point
    stays=True,
    tell=_tell_ray_job,
    faults=_by_the_operator,
)
WORKFLOW = Kind(
    api="argoproj.io/v1alpha1",
    kind="Workflow",
    resource="workflows",
    label="workflows.argoproj.io/workflow",
    longest=63,
    pod=None,
    needed=(("spec", "workflowTemplateRef", "name"),),
    told=(("spec", "arguments"),),
    tell=_tell_workflow,
)
KINDS = (JOB, TRAIN_JOB, RAY_JOB, WORKFLOW)
