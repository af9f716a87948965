"""A template of training Jobs, as the tests' cluster is given it, and a run that asks for one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from millstream.contracts.events import Cause
from millstream_trainer.domain.run import RunSpec

SPEC = RunSpec(
    loop="tides",
    run="r1",
    attempt=1,
    version="1",
    at=datetime(2013, 3, 3, tzinfo=UTC),
    cause=Cause.FIRST_MODEL,
    request="labels-60",
    positions={"ships-arrived": {0: 41}},
    champion=None,
)


DISPATCHER = """
import asyncio, pathlib, sys, msgspec
from millstream_trainer.adapters.job_template import JobTemplate
from millstream_trainer.adapters.kubernetes_api import KubernetesApi
from millstream_trainer.adapters.kubernetes_jobs import KubernetesJobs
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.domain.run import RunSpec
manifest, spec = msgspec.json.decode(sys.stdin.read(), type=tuple[dict, RunSpec])
template = JobTemplate(manifest)
api = KubernetesApi(template.namespace, pathlib.Path(sys.argv[1]))
executor = KubernetesJobs(template=template, api=api, notes=RunNotes(sys.argv[2]), deadline=100, patience=60, untracked=print)
asyncio.run(executor.run(spec))
"""
"""A dispatcher's part that makes Jobs, in a process that can be killed."""


def manifest(namespace: str, packages: str, **environment: str) -> dict[str, Any]:
    variables = {"MILLSTREAM_LAKE": "/shared/lake", "MILLSTREAM_PACKAGES": packages} | environment
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "mill-trainer", "namespace": namespace},
        "spec": {
            "backoffLimit": 2,
            "ttlSecondsAfterFinished": 3600,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 3]}},
                ]
            },
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": "default",
                    "containers": [
                        {
                            "name": "training",
                            "image": "millstream/trainer:0.1.0",
                            "command": ["/opt/venv/bin/python", "-m", "millstream_trainer.adapters.training_job"],
                            "env": [{"name": name, "value": value} for name, value in variables.items()],
                            "resources": {"limits": {"memory": "4Gi"}},
                            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
                        }
                    ],
                    "volumes": [{"name": "shared", "emptyDir": {}}],
                }
            },
        },
    }


def train_job(namespace: str) -> dict[str, Any]:
    runtime = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "mill-trainer"}
    return _of("trainer.kubeflow.org/v1alpha1", "TrainJob", namespace, runtimeRef=runtime)


def ray_job(namespace: str, packages: str) -> dict[str, Any]:
    pod = manifest(namespace, packages)["spec"]["template"]
    command = pod["spec"]["containers"][0].pop("command")
    head = {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": pod}
    return _of(
        *("ray.io/v1", "RayJob", namespace),
        entrypoint=" ".join(command),
        submissionMode="HTTPMode",
        backoffLimit=2,
        shutdownAfterJobFinishes=True,
        rayClusterSpec={"headGroupSpec": head},
    )


def workflow(namespace: str) -> dict[str, Any]:
    return _of("argoproj.io/v1alpha1", "Workflow", namespace, workflowTemplateRef={"name": "mill-trainer"})


def _of(api: str, kind: str, namespace: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "mill-trainer", "namespace": namespace}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}
