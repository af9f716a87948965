"""What Argo CD and KServe take, made once from their Go modules: JSON Schemas, KServe's runtimes. No cluster here has them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from ruamel.yaml import YAML

from .kube_schemas import RECIPE, versions_of, write
from .tools import module_source

ARGO = ("github.com/argoproj/argo-cd/v3", "v3.5.7")
"""The newest that a Go of the tools' age downloads."""
KSERVE = ("github.com/kserve/kserve", "v0.15.2")
"""The newest that the module proxy has whole."""
CRDS = {
    ARGO: ("manifests/crds/application-crd.yaml", "manifests/crds/applicationset-crd.yaml"),
    KSERVE: ("config/crd/full/serving.kserve.io_inferenceservices.yaml",),
}


def folder(cache: Path) -> Path:
    pins = json.dumps([RECIPE, [[*module, *files] for module, files in CRDS.items()]])
    return cache / f"delivery-schemas-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"


def make(cache: Path) -> Path:
    """The folder: kind-group-version.json, and runtimes/. Raises NoTool."""
    made = folder(cache)
    if made.exists():
        return made
    half = made.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    for module, files in CRDS.items():
        source = module_source(*module)
        for file in files:
            for name, schema in versions_of(YAML(typ="safe").load((source / file).read_text())):
                write(half / name, schema)
    for runtime in (module_source(*KSERVE) / "config" / "runtimes").glob("*.yaml"):
        (half / "runtimes").mkdir(exist_ok=True)
        shutil.copyfile(runtime, half / "runtimes" / runtime.name)
    half.replace(made)
    return made
