"""The manifest that a cluster's people (or the chart) write for training Jobs, and what a run adds to it."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from millstream.errors import BadSetup
from millstream_trainer.adapters.job_kinds import HASHED, KINDS, Kind, at
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

LONGEST_SPEC = 65_536
"""Bytes of one argument: a TrainJob takes no more, and Linux 131,072. A stream's partition takes about ten."""

KEPT = "millstream/ttl-seconds-after-finished"
"""Annotation of what Kubernetes does not remove by itself: how old an ended one becomes, a day where it is not said."""

ALWAYS = (("metadata", "name"), ("metadata", "namespace"))
OF_POD = (("spec", "restartPolicy"), ("spec", "serviceAccountName"), ("spec", "containers"))
OF_CONTAINER = ("image", "resources", "volumeMounts")
VARIABLES = ("MILLSTREAM_LAKE", "MILLSTREAM_PACKAGES")
OURS = (("metadata", "generateName"), ("spec", "activeDeadlineSeconds"))
"""What every run writes itself: standing in the template they would not do what they say."""


class JobTemplate:
    """Checked when it is read, so that a mistake in it shows when the trainer starts and not at the first drift."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._manifest = manifest
        self.kind = _kind_of(manifest)
        self.namespace = str(manifest["metadata"]["namespace"])
        self._prefix = str(manifest["metadata"]["name"])
        self.kept = timedelta(seconds=int((manifest["metadata"].get("annotations") or {}).get(KEPT, 86_400)))

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

    def made(self, name: str) -> bool:
        """Whether it is of a run of this template."""
        return name.rpartition("-")[0] == self._prefix

    def job(self, spec: RunSpec, deadline: float) -> dict[str, Any]:
        """The Job of a run, or what stands for one; `deadline` in seconds. Raises RunFailed."""
        told = as_argument(spec)
        labels = {"millstream/loop": spec.loop[:63].rstrip("-"), "millstream/run": spec.run}
        made: dict[str, Any] = copy.deepcopy(dict(self._manifest))
        self.kind.fill(made, self.name(spec), labels, told, deadline)
        return made


def as_argument(spec: RunSpec) -> str:
    """As JSON, in which nobody on the way finds a variable of its own: Kubernetes `$(X)`, Argo `{{x}}`. Raises RunFailed."""
    # Outside of strings JSON has neither; inside, an escape is read as what it stands for.
    told = msgspec.json.encode(spec).decode().replace("$", r"\u0024").replace("{{", r"{\u007b")
    if len(told.encode()) > LONGEST_SPEC:
        raise RunFailed(
            f"what the run has to be told is {len(told.encode())} bytes; as an argument {LONGEST_SPEC} are allowed"
        )
    return told


def _kind_of(manifest: Any) -> Kind:
    said = (at(manifest, ("apiVersion",)), at(manifest, ("kind",)))
    for kind in KINDS:
        if said == (kind.api, kind.kind):
            return kind
    known = ", ".join(f"{kind.api} {kind.kind}" for kind in KINDS)
    raise BadSetup(f"apiVersion and kind are {said[0]} {said[1]}, and none of {known}")


def _faults(manifest: Any, packages: str) -> list[str]:
    """What is missing or contradicts us, each with its key."""
    try:
        kind = _kind_of(manifest)
    except BadSetup as error:
        return [str(error)]
    pod = kind.pod or ()
    needed = (*ALWAYS, *kind.needed, *((*pod, *path) for path in OF_POD if kind.pod is not None))
    missing = [f"{'.'.join(path)} is missing" for path in needed if at(manifest, path) in (None, "", [], {})]
    if missing:
        return missing
    told = (*OURS, *kind.told)
    faults = [f"{'.'.join(path)} is the run's to write" for path in told if at(manifest, path) is not None]
    name, longest = str(manifest["metadata"]["name"]), kind.longest - HASHED
    if len(name) > longest or re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) is None:
        faults.append(
            f"metadata.name {name!r:.80} is no name of {longest} lowercase letters, digits and dashes that begins with a letter"
        )
    faults += kind.faults(manifest)
    if kind.pod is not None:
        where = ".".join((*pod, "spec"))
        spec = at(manifest, (*pod, "spec"))
        if spec["restartPolicy"] != "Never":
            faults.append(f"{where}.restartPolicy has to be Never: who tries again is the {kind.kind}")
        faults += _of_containers(spec["containers"], packages, where, kind.commanded)
    return faults


def _of_containers(containers: Sequence[Mapping[str, Any]], packages: str, where: str, commanded: bool) -> list[str]:
    if len(containers) != 1:
        return [f"{where}.containers has {len(containers)} containers; a run is one"]
    needed = (*OF_CONTAINER, *(("command",) if commanded else ()))
    faults = [f"{where}.containers[0].{key} is missing" for key in needed if not containers[0].get(key)]
    if "args" in containers[0]:
        faults.append(f"{where}.containers[0].args is the run's to write")
    variables = {one.get("name"): one for one in containers[0].get("env") or []}
    faults += [f"{where}.containers[0].env has no {name}" for name in VARIABLES if name not in variables]
    there = variables.get("MILLSTREAM_PACKAGES", {}).get("value", packages)
    if there != packages:
        faults.append(
            f"{where}.containers[0].env has MILLSTREAM_PACKAGES={there}, and this trainer's is {packages}: a package is named "
            "by its path"
        )
    return faults
