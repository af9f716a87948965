"""The manifest that a cluster's people (or the chart) write for training Jobs, and what a run adds to it."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from millstream.errors import BadSetup
from millstream_trainer.adapters.training_job import FAILED, UNUSABLE
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

CONTAINER = "training"
LONGEST_NAME = 46
"""Characters of metadata.name: a dash and 16 more follow, and 63 are allowed."""
LONGEST_SPEC = 100_000
"""Bytes of one argument: Linux takes 131,072. A stream's partition takes about ten."""

NEEDED = (
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("spec", "backoffLimit"),
    ("spec", "ttlSecondsAfterFinished"),
    ("spec", "podFailurePolicy", "rules"),
    ("spec", "template", "spec", "restartPolicy"),
    ("spec", "template", "spec", "serviceAccountName"),
    ("spec", "template", "spec", "containers"),
)
OF_CONTAINER = ("image", "command", "resources", "volumeMounts")
VARIABLES = ("MILLSTREAM_LAKE", "MILLSTREAM_PACKAGES")
OURS = (("metadata", "generateName"), ("spec", "activeDeadlineSeconds"))
"""What a run writes itself: standing in the template they would not do what they say."""


class JobTemplate:
    """Checked when it is read, so that a mistake in it shows when the trainer starts and not at the first drift."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._manifest = manifest
        self.namespace = str(manifest["metadata"]["namespace"])
        self._prefix = str(manifest["metadata"]["name"])

    @classmethod
    def read(cls, path: Path | None, packages: str) -> JobTemplate:
        """`packages`: the dispatcher's folder, which the Jobs have to have at the same place. Raises BadSetup."""
        if path is None:
            raise BadSetup(
                "MILLSTREAM_EXECUTOR is kubernetes, and MILLSTREAM_JOB_TEMPLATE is empty: name the manifest of a Job"
            )
        try:
            manifest = YAML(typ="safe").load(path)
        except (OSError, YAMLError) as error:
            raise BadSetup(f"MILLSTREAM_JOB_TEMPLATE: {path} cannot be read: {error}") from error
        faults = _faults(manifest, packages)
        if faults:
            raise BadSetup(f"MILLSTREAM_JOB_TEMPLATE: {path} is no template of a training Job: {'; '.join(faults)}")
        return cls(manifest)

    def name(self, spec: RunSpec) -> str:
        """The same run has the same name, whichever dispatcher asks: so it is one Job."""
        text = "\0".join((self.namespace, self._prefix, spec.loop, spec.run))
        return f"{self._prefix}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def job(self, spec: RunSpec, deadline: float) -> dict[str, Any]:
        """The Job of a run; `deadline` in seconds. Raises RunFailed."""
        told = msgspec.json.encode(spec)
        if len(told) > LONGEST_SPEC:
            raise RunFailed(
                f"what the run has to be told is {len(told)} bytes; as an argument {LONGEST_SPEC} are allowed"
            )
        made: dict[str, Any] = copy.deepcopy(dict(self._manifest))
        labels = {"millstream/loop": spec.loop[:63].rstrip("-"), "millstream/run": spec.run}
        made["metadata"]["name"] = name = self.name(spec)
        made["spec"]["activeDeadlineSeconds"] = math.ceil(deadline)
        template = made["spec"]["template"]
        for metadata in (made["metadata"], template.setdefault("metadata", {})):
            metadata["labels"] = (metadata.get("labels") or {}) | labels
        template["spec"]["containers"][0]["args"] = [name, told.decode()]
        return made


def _faults(manifest: Any, packages: str) -> list[str]:
    """What is missing or contradicts us, each with its key."""
    missing = [f"{'.'.join(path)} is missing" for path in NEEDED if _at(manifest, path) in (None, "", [], {})]
    if missing:
        return missing
    faults = [f"{'.'.join(path)} is the run's to write" for path in OURS if _at(manifest, path) is not None]
    if (manifest["apiVersion"], manifest["kind"]) != ("batch/v1", "Job"):
        faults.append(f"apiVersion and kind are {manifest['apiVersion']} {manifest['kind']}, not batch/v1 Job")
    name = str(manifest["metadata"]["name"])
    if len(name) > LONGEST_NAME or re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) is None:
        faults.append(f"metadata.name {name!r:.80} is no name of {LONGEST_NAME} lowercase letters, digits and dashes")
    pod = manifest["spec"]["template"]["spec"]
    if pod["restartPolicy"] != "Never":
        faults.append("spec.template.spec.restartPolicy has to be Never: a podFailurePolicy wants it")
    ended = {code for rule in manifest["spec"]["podFailurePolicy"]["rules"] for code in _fails_at(rule)}
    if not ended >= {FAILED, UNUSABLE}:
        faults.append(
            f"spec.podFailurePolicy.rules has no FailJob for onExitCodes {FAILED} and {UNUSABLE}, by which a run says that "
            "another try would end as it did"
        )
    return faults + _of_container(pod["containers"], packages)


def _of_container(containers: Sequence[Mapping[str, Any]], packages: str) -> list[str]:
    at = "spec.template.spec.containers"
    if len(containers) != 1:
        return [f"{at} has {len(containers)} containers; a run is one"]
    faults = [f"{at}[0].{key} is missing" for key in OF_CONTAINER if not containers[0].get(key)]
    if "args" in containers[0]:
        faults.append(f"{at}[0].args is the run's to write")
    variables = {one.get("name"): one for one in containers[0].get("env") or []}
    faults += [f"{at}[0].env has no {name}" for name in VARIABLES if name not in variables]
    there = variables.get("MILLSTREAM_PACKAGES", {}).get("value", packages)
    if there != packages:
        faults.append(
            f"{at}[0].env has MILLSTREAM_PACKAGES={there}, and this trainer's is {packages}: a package is named by its path"
        )
    return faults


def _fails_at(rule: Mapping[str, Any]) -> list[int]:
    codes: Mapping[str, Any] = rule.get("onExitCodes") or {}
    return list(codes.get("values") or []) if (rule.get("action"), codes.get("operator")) == ("FailJob", "In") else []


def _at(manifest: Any, path: Sequence[str]) -> Any:
    for part in path:
        manifest = manifest.get(part) if isinstance(manifest, Mapping) else None
    return manifest
