"""A packaged model as KServe runs it: an InferenceService, and the model repository that its Triton runtime reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from millstream.contracts.events import ModelRef
from millstream.contracts.package import MODEL_FILE, Manifest
from millstream_cli.errors import CommandFailed

RUNTIME = "kserve-tritonserver"
"""KServe's own ServingRuntime for ONNX; it answers the Open Inference Protocol v2, as our serving does."""
SCHEMES = ("gs://", "hf://", "http://", "https://", "pvc://", "s3://")
"""Where KServe's storage initializer loads from."""
LONGEST_NAME = 53
"""Characters: KServe makes names of Services of it, with `-predictor` behind."""

_TYPES = {"number": "TYPE_FP32", "category": "TYPE_STRING"}
_SHAPES = {"probability": "[ -1 ]", "value": "[ -1 ]", "probabilities": "[ -1, {classes} ]"}
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def exported(
    ref: ModelRef, manifest: Manifest, graph: bytes, *, storage: str, namespace: str | None
) -> dict[str, bytes]:
    """Path → content, below the folder that is written. Raises CommandFailed."""
    if not storage.startswith(SCHEMES):
        said = ", ".join(SCHEMES)
        raise CommandFailed(
            f"--storage is {storage!r}; write where KServe will find the folder, like s3://models/{manifest.loop} "
            f"(it knows {said})"
        )
    if len(manifest.loop) > LONGEST_NAME or _NAME.fullmatch(manifest.loop) is None:
        raise CommandFailed(
            f"{manifest.loop!r} is no name of an InferenceService: {LONGEST_NAME} lowercase letters, digits and dashes"
        )
    if manifest.output not in _SHAPES or any(column.type not in _TYPES for column in manifest.inputs):
        raise CommandFailed(f"version {ref.version} answers {manifest.output!r}, which this release cannot describe")
    if not ref.version.isdecimal():  # it becomes a folder's name
        raise CommandFailed(f"version {ref.version!r:.60} is no number, and Triton knows no other versions")
    text = StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.dump(inference_service(ref, manifest, storage=storage, namespace=namespace), text)
    return {
        "inferenceservice.yaml": text.getvalue().encode(),
        f"repository/{manifest.loop}/config.pbtxt": config(manifest).encode(),
        f"repository/{manifest.loop}/{ref.version}/{MODEL_FILE}": graph,
    }


def inference_service(ref: ModelRef, manifest: Manifest, *, storage: str, namespace: str | None) -> Mapping[str, Any]:
    """serving.kserve.io/v1beta1. Annotations say which model of which run it is."""
    metadata: dict[str, Any] = {
        "name": manifest.loop,
        "labels": {"app.kubernetes.io/part-of": "millstream", "millstream/loop": manifest.loop},
        "annotations": {
            "millstream/version": ref.version,
            "millstream/run": ref.run,
            "millstream/manifest-sha256": ref.sha256,
            "millstream/model-sha256": manifest.files[MODEL_FILE],
            "millstream/learned-until": manifest.lineage.at.isoformat(),
        },
    }
    if namespace is not None:
        metadata["namespace"] = namespace
    model = {
        "modelFormat": {"name": "onnx"},
        "runtime": RUNTIME,
        "protocolVersion": "v2",
        "storageUri": storage.rstrip("/"),
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": {"minReplicas": 1, "model": model}},
    }


def config(manifest: Manifest) -> str:
    """Triton's config.pbtxt: the tensors as the manifest has them, one row a question."""
    inputs = ",\n".join(
        f"  {{ name: {json.dumps(column.name)} data_type: {_TYPES[column.type]} dims: [ -1, 1 ] }}"
        for column in manifest.inputs
    )
    shape = _SHAPES[manifest.output].format(classes=len(manifest.classes))
    return "\n".join(
        (
            f"# {manifest.loop}, version {manifest.version} of run {manifest.run}.",
            "# Missing numbers are NaN, missing texts empty.",
            f"name: {json.dumps(manifest.loop)}",
            'backend: "onnxruntime"',
            "# The first dimension of each tensor is the rows of a request.",
            "max_batch_size: 0",
            f"input [\n{inputs}\n]",
            f"output [\n  {{ name: {json.dumps(manifest.output)} data_type: TYPE_FP32 dims: {shape} }}\n]",
            f"version_policy: {{ specific: {{ versions: [ {manifest.version} ] }} }}",
            "",
        )
    )
