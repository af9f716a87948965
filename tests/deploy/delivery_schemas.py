"""JSON Schemas of what Argo CD is told, made once from its Go module; no cluster of ours has its CRDs."""

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
FILES = ("manifests/crds/application-crd.yaml", "manifests/crds/applicationset-crd.yaml")


def folder(cache: Path) -> Path:
    pins = json.dumps([RECIPE, ARGO, FILES])
    return cache / f"delivery-schemas-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"


def make(cache: Path) -> Path:
    """The folder: kind-group-version.json. Raises NoTool."""
    made = folder(cache)
    if made.exists():
        return made
    half = made.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    source = module_source(*ARGO)
    for file in FILES:
        for name, schema in versions_of(YAML(typ="safe").load((source / file).read_text())):
            write(half / name, schema)
    half.replace(made)
    return made
