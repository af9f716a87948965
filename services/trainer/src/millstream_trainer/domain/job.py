"""A training run's Job as Kubernetes tells of it, read for people: whether it ended, why, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

STUCK = frozenset(
    ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")
)
"""A container that waits for one of these has not begun, and says why. The kubelet tries again by itself."""

NO_POD = "it has no pod; `kubectl describe job` says who refuses it: a quota, a policy, a missing account"


class Metadata(msgspec.Struct, frozen=True):
    name: str
    resourceVersion: str = ""
    creationTimestamp: datetime | None = None


class Condition(msgspec.Struct, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class JobStatus(msgspec.Struct, frozen=True):
    """Of a Job and of a TrainJob the conditions, of a RayJob jobDeploymentStatus, of a Workflow the phase."""

    conditions: list[Condition] = []
    jobDeploymentStatus: str = ""
    phase: str = ""
    reason: str = ""
    message: str = ""


class Job(msgspec.Struct, frozen=True):
    """The part of a Job that we read, or of what stands for one."""

    metadata: Metadata
    status: JobStatus = JobStatus()

    @property
    def complete(self) -> bool:
        said = (self.status.jobDeploymentStatus, self.status.phase)
        return self._condition("Complete") is not None or said in (("Complete", ""), ("", "Succeeded"))

    @property
    def ended(self) -> bool:
        return self.complete or self.failure is not None

    @property
    def failure(self) -> Condition | None:
        status = self.status
        if status.jobDeploymentStatus in ("Failed", "ValidationFailed") or status.phase in ("Failed", "Error"):
            return Condition("Failed", "True", status.reason or status.phase, status.message)
        return self._condition("Failed")

    def _condition(self, type: str) -> Condition | None:
        return next((one for one in self.status.conditions if (one.type, one.status) == (type, "True")), None)


class Waiting(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class Terminated(msgspec.Struct, frozen=True):
    exitCode: int = 0
    reason: str = ""


class ContainerState(msgspec.Struct, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True):
    state: ContainerState = ContainerState()


class PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    conditions: list[Condition] = []
    containerStatuses: list[ContainerStatus] = []


class Pod(msgspec.Struct, frozen=True):
    """The part of a `v1` Pod that we read."""

    metadata: Metadata
    status: PodStatus = PodStatus()

    @property
    def began(self) -> bool:
        return self.status.phase in ("Running", "Succeeded", "Failed")


def waits_for(pods: Sequence[Pod]) -> str | None:
    """Why no pod of a Job has begun yet, None where one has."""
    if any(pod.began for pod in pods):
        return None
    for pod in pods:
        for condition in pod.status.conditions:
            if (condition.type, condition.status) == ("PodScheduled", "False"):
                return f"no node takes its pod: {condition.message or condition.reason}"
        for container in pod.status.containerStatuses:
            waiting = container.state.waiting
            if waiting is not None and waiting.reason in STUCK:
                return f"its container cannot start: {waiting.reason}: {waiting.message}"
    return "its pod has not begun" if pods else NO_POD


def why_failed(failure: Condition, pods: Sequence[Pod], waited: str | None) -> str:
    """A sentence for TrainingFinished. `waited`: what it was last seen to wait for, None where it had begun."""
    if failure.reason == "DeadlineExceeded":
        if waited is not None:
            return f"it passed its deadline before it began: {waited}"
        return "it passed its deadline and was ended"
    ends = [one.state.terminated for pod in pods for one in pod.status.containerStatuses if one.state.terminated]
    last = next((end for end in reversed(ends) if end.exitCode), None)
    how = f"; its container ended with code {last.exitCode} ({last.reason or 'Error'})" if last else ""
    return f"{failure.reason or 'Failed'}: {failure.message or 'no message'}{how}"
