"""The charts as the tests see them: which there are, their examples, and what Helm makes of both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "deploy" / "charts"
GOLDENS = Path(__file__).parent / "goldens"
SERVICES = ("ingest", "features", "serving", "drift", "trainer")
ALL = (*SERVICES, "millstream")
EXAMPLES = [(chart, path.name) for chart in ALL for path in sorted((CHARTS / chart / "ci").glob("*-values.yaml"))]
"""Chart and file of values, for each chart at least the least that it takes."""
MINIMAL = "minimal-values.yaml"

Document = Mapping[str, Any]


class Refused(Exception):
    """Helm does not render it; the message is what a person reads."""


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


@cache
def template(helm: Path, chart: str, values: str = MINIMAL, *sets: str, options: tuple[str, ...] = ()) -> str:
    """What `helm template` prints, with `--set` for each of `sets`. Raises Refused."""
    said = subprocess.run(
        [
            *(str(helm), "template", chart, str(CHARTS / chart), "--namespace", "mill"),
            *("-f", str(CHARTS / chart / "ci" / values)),
            *(part for one in sets for part in ("--set-json" if "=[" in one or "={" in one else "--set", one)),
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if said.returncode:
        raise Refused("\n".join(line for line in said.stderr.splitlines() if "symbolic link" not in line))
    return said.stdout


def documents(text: str) -> list[Document]:
    return [document for document in YAML(typ="safe").load_all(text) if document]


def of_kind(found: Sequence[Document], kind: str) -> list[Document]:
    return [document for document in found if document["kind"] == kind]


def pods(found: Sequence[Document]) -> Iterator[Mapping[str, Any]]:
    """The spec of every pod that the documents make."""
    for document in found:
        if document["kind"] == "Pod":
            yield document["spec"]
        elif document["kind"] in ("Deployment", "Job"):
            yield document["spec"]["template"]["spec"]
    for template in runs(found):
        yield template["spec"]


def runs(found: Sequence[Document]) -> Iterator[Mapping[str, Any]]:
    """The template of the pod of a training run, wherever the documents have it."""
    for document in found:
        if document["kind"] == "TrainingRuntime":
            yield document["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
        elif document["kind"] == "WorkflowTemplate":
            spec = document["spec"]
            (made,) = spec["templates"]
            # As Argo makes it, less its own containers.
            pod = {**spec, **json.loads(spec["podSpecPatch"]), "containers": [made["container"]]}
            yield {"metadata": made["metadata"], "spec": pod}
        elif document["kind"] == "ScaledJob":
            yield document["spec"]["jobTargetRef"]["template"]
        elif "job.yaml" in document.get("data", {}):
            spec = job_of(document)["spec"]
            template = spec.get("rayClusterSpec", {}).get("headGroupSpec", spec).get("template")
            if template is not None:  # of a TrainJob and a Workflow it stands beside
                yield template


def job_of(config: Document) -> dict[str, Any]:
    """The template of training Jobs that a ConfigMap holds."""
    found: dict[str, Any] = YAML(typ="safe").load(config["data"]["job.yaml"])
    return found


def golden(chart: str, values: str) -> Path:
    return GOLDENS / chart / values.replace("-values.yaml", ".yaml")
