"""A template of training Jobs, as the tests' cluster is given it."""

from __future__ import annotations

from typing import Any


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
