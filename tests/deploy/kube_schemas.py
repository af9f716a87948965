"""JSON Schemas of what the charts render, made once from Go modules: Kubernetes' own kinds, CRDs, and KEDA's table of triggers.

Strict: a field that the API does not know is refused, as a misspelt one is only dropped by an API server.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from .tools import module_source

KUBERNETES = {"1.33.13": "v1.33.13", "1.34.4": "v1.34.4", "1.35.4": "v1.35.4"}
"""The newest of each minor version that the module proxy gives."""
KINDS = frozenset(
    (
        *(
            "ConfigMap",
            "Deployment",
            "HorizontalPodAutoscaler",
            "Ingress",
            "Job",
            "NetworkPolicy",
            "PersistentVolumeClaim",
        ),
        *("Pod", "PodDisruptionBudget", "ResourceQuota", "Role", "RoleBinding", "Secret", "Service", "ServiceAccount"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    )
)
KEDA = ("github.com/kedacore/keda/v2", "v2.20.2")
CRDS = {
    KEDA: (
        "config/crd/bases/keda.sh_scaledjobs.yaml",
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    ("github.com/prometheus-operator/prometheus-operator", "v0.85.0"): (
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    ("sigs.k8s.io/gateway-api", "v1.4.1"): ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    ("istio.io/api", "v1.31.1"): ("kubernetes/customresourcedefinitions.gen.yaml",),
    ("github.com/external-secrets/external-secrets", "v1.3.2"): (
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
    ("k8s.io/autoscaler/vertical-pod-autoscaler", "v1.8.1"): ("deploy/vpa-v1-crd-gen.yaml",),
    ("github.com/kubeflow/trainer/v2", "v2.2.0"): (
        "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml",
        "manifests/base/crds/trainer.kubeflow.org_trainingruntimes.yaml",
    ),
    ("github.com/ray-project/kuberay/ray-operator", "v1.5.1"): ("config/crd/bases/ray.io_rayjobs.yaml",),
    ("github.com/argoproj/argo-workflows/v3", "v3.7.3"): (
        "manifests/base/crds/full/argoproj.io_workflows.yaml",
        "manifests/base/crds/full/argoproj.io_workflowtemplates.yaml",
    ),
}
RECIPE = "1"
"""Raised when the conversion below changes."""


def folder(cache: Path) -> Path:
    pins = json.dumps([RECIPE, KUBERNETES, sorted(KINDS), [[*m, *files] for m, files in CRDS.items()]])
    return cache / f"kube-schemas-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"


def make(cache: Path) -> Path:
    """The folder: VERSION/kind-group-version.json, crds/kind-group-version.json, triggers.json. Raises NoTool."""
    made = folder(cache)
    if made.exists():
        return made
    half = made.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    for version, tag in KUBERNETES.items():
        source = module_source("k8s.io/kubernetes", tag)
        definitions = json.loads((source / "api" / "openapi-spec" / "swagger.json").read_bytes())["definitions"]
        for name, schema in kinds_of(definitions):
            write(half / version / name, schema)
    for (module, version), files in CRDS.items():
        source = module_source(module, version)
        for file in files:
            for crd in YAML(typ="safe").load_all((source / file).read_text()):
                for name, schema in versions_of(crd or {}):
                    write(half / "crds" / name, schema)
    triggers = json.loads((module_source(*KEDA) / "schema" / "generated" / "scalers-schema.json").read_bytes())
    write(half / "triggers.json", {one["type"]: one["parameters"] for one in triggers["scalers"]})
    half.replace(made)
    return made


def write(path: Path, schema: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(schema))


def kinds_of(definitions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of Kubernetes' own kinds: file name and schema, each with all that it refers to."""
    strict = {name: strictly(schema) for name, schema in definitions.items()}
    quantity = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    strict[quantity] = {"type": ["string", "number"]}
    for name, schema in definitions.items():
        for known in schema.get("x-kubernetes-group-version-kind", ()):
            if known["kind"] in KINDS and len(schema["x-kubernetes-group-version-kind"]) == 1:
                needed: dict[str, Any] = {}
                collect(strict[name], strict, needed)
                yield (
                    file_name(known["kind"], known["group"], known["version"]),
                    {"$schema": "http://json-schema.org/draft-04/schema#"} | strict[name] | {"definitions": needed},
                )


def collect(schema: Any, strict: Mapping[str, Any], needed: dict[str, Any]) -> None:
    """Put into `needed` every definition that `schema` refers to, however far."""
    if isinstance(schema, dict):
        name = str(schema.get("$ref", "")).removeprefix("#/definitions/")
        if name and name not in needed:
            needed[name] = strict[name]
            collect(strict[name], strict, needed)
        for part in schema.values():
            collect(part, strict, needed)
    elif isinstance(schema, list):
        for part in schema:
            collect(part, strict, needed)


def versions_of(crd: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of a CustomResourceDefinition: file name and schema of each served version."""
    if crd.get("kind") != "CustomResourceDefinition":
        return
    spec = crd["spec"]
    for version in spec["versions"]:
        if version["served"]:
            schema = strictly(version["schema"]["openAPIV3Schema"])
            for always in ("apiVersion", "kind", "metadata"):  # some CRDs leave them out, and every object has them
                schema.setdefault("properties", {}).setdefault(always, {})
            yield (
                file_name(spec["names"]["kind"], spec["group"], version["name"]),
                {"$schema": "http://json-schema.org/draft-04/schema#"} | schema,
            )


def strictly(schema: Any) -> Any:
    """The same, with unknown fields refused wherever fields are named, and numbers where Kubernetes takes either."""
    if isinstance(schema, list):
        return [strictly(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    said = {
        key: strictly(part)
        for key, part in schema.items()
        if (not key.startswith("x-kubernetes") and key not in ("description", "default", "nullable", "example"))
        or (key in ("description", "default", "nullable", "example") and isinstance(part, dict))
    }
    if schema.get("format") == "int-or-string":
        said = {"type": ["string", "integer"]}
    if schema.get("nullable") is True and isinstance(said.get("type"), str):
        said["type"] = [said["type"], "null"]
    open_to_all = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_to_all:
        said["additionalProperties"] = False
    return said


def file_name(kind: str, group: str, version: str) -> str:
    """As kubeconform looks for it with `{{.ResourceKind}}{{.KindSuffix}}`."""
    first = group.split(".")[0]
    return f"{kind}-{first}-{version}.json".lower() if first else f"{kind}-{version}.json".lower()
