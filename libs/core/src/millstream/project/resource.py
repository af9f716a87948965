"""A loop as a resource of Kubernetes: the CustomResourceDefinition of MillstreamLoop, made from the model of loop files.

Its schema is structural, as API servers want it: where a loop file may hold one of several kinds of value it says less than the
model, and the trainer, which reads the whole model, says the rest as a condition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from millstream.project.loop import Loop
from millstream.project.schemas import schema_of

GROUP, VERSION, KIND, PLURAL = "millstream.dev", "v1alpha1", "MillstreamLoop", "millstreamloops"

_KEPT = ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "required")
_ANYTHING = "x-kubernetes-preserve-unknown-fields"


def structural(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """`schema`, a JSON Schema whose `$ref`s name `parts`, as an OpenAPI v3 schema without references and unions.

    Defaults stand in the descriptions alone: written into the objects they would outlive the release that chose them.
    """
    if "$ref" in schema:
        schema = {**parts[schema["$ref"].rpartition("/")[2]], **{k: v for k, v in schema.items() if k != "$ref"}}
    made: dict[str, Any] = {}
    if said := _description(schema):
        made["description"] = said
    if "anyOf" in schema:
        return made | _either(schema["anyOf"], parts)
    made |= {key: schema[key] for key in _KEPT if key in schema}
    for bound, kind in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in schema:
            made |= {kind: schema[bound], bound: True}
    if "const" in schema:
        made |= {"type": "string", "enum": [schema["const"]]}
    if "items" in schema:
        made["items"] = structural(schema["items"], parts)
    if "properties" in schema:
        made["properties"] = {name: structural(one, parts) for name, one in schema["properties"].items()}
    if schema.get("additionalProperties") is True:
        made[_ANYTHING] = True
    return made


def _either(choices: list[Mapping[str, Any]], parts: Mapping[str, Any]) -> dict[str, Any]:
    """What of a union can be said: one kind that may be null, a number or text, or that it is no business of the API server."""
    some = [choice for choice in choices if choice.get("type") != "null"]
    null = {"nullable": True} if len(some) < len(choices) else {}
    if len(some) == 1:
        return structural(some[0], parts) | null
    found = [structural(choice, parts) for choice in some]
    kinds = {one.get("type") for one in found}
    if kinds == {"object"}:
        return {"type": "object", _ANYTHING: True} | null
    if kinds == {"string", "integer"}:
        return {"x-kubernetes-int-or-string": True} | null
    return {_ANYTHING: True} | null


def _description(schema: Mapping[str, Any]) -> str:
    said = " ".join(str(schema.get("description", "")).split())
    default = schema.get("default")
    if default in (None, "", []) or isinstance(default, dict):
        return said
    return f"{said} Default: {json.dumps(default)}.".strip()


_TEXT = {"type": "string"}
_STATUS: Mapping[str, Any] = {
    "type": "object",
    "description": "What the trainer says of the loop.",
    "properties": {
        "observedGeneration": {"type": "integer", "format": "int64", "description": "Of the spec that this is about."},
        "champion": {**_TEXT, "description": "Version of the model that answers; empty where there is none yet."},
        "trial": {**_TEXT, "description": "Version on trial and its step; empty where none is."},
        "verdict": {**_TEXT, "description": "What drift said last, and of what: as `detected (inputs)`."},
        "decision": {**_TEXT, "description": "What trainer decided last, and on what cause: as `accepted (drift)`."},
        "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                "properties": {
                    "type": {**_TEXT, "enum": ["Valid", "Champion", "Healthy", "Decided"]},
                    "status": {**_TEXT, "enum": ["True", "False", "Unknown"]},
                    "observedGeneration": {"type": "integer", "format": "int64"},
                    "lastTransitionTime": {**_TEXT, "format": "date-time"},
                    "reason": {**_TEXT, "minLength": 1, "maxLength": 1024},
                    "message": {**_TEXT, "maxLength": 32768},
                },
            },
        },
    },
}
_COLUMNS = (
    ("Valid", "string", '.status.conditions[?(@.type=="Valid")].status', "Whether millstream check would take it", 0),
    ("Champion", "string", ".status.champion", "Version that answers", 0),
    ("Trial", "string", ".status.trial", "Version on trial and its step", 0),
    ("Verdict", "string", ".status.verdict", "What drift said last", 0),
    ("Decision", "string", ".status.decision", "What trainer decided last", 0),
    ("Why", "string", '.status.conditions[?(@.type=="Decided")].message', "Why it decided so", 1),
    ("Age", "date", ".metadata.creationTimestamp", "", 0),
)


def loop_definition() -> dict[str, Any]:
    """The CustomResourceDefinition (apiextensions.k8s.io/v1)."""
    whole = schema_of(Loop)
    spec = structural({k: v for k, v in whole.items() if k != "$defs"}, whole["$defs"])
    spec["description"] = "As a file of loops/ has it; `loop` may be left out, as it is the resource's name."
    spec["required"] = [name for name in spec["required"] if name != "loop"]
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "description": why, "priority": wide}
        for name, kind, path, why, wide in _COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "millstream"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["loops", "loop"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "A loop of Millstream: one model and everything that keeps it good.",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": _TEXT,
                                "kind": _TEXT,
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": _STATUS,
                            },
                            "x-kubernetes-validations": [
                                {
                                    "rule": "!has(self.spec.loop) || self.spec.loop == self.metadata.name",
                                    "message": "spec.loop is another name than metadata.name: write one name, or leave "
                                    "spec.loop out",
                                },
                                {
                                    "rule": "self.metadata.name.matches('^[a-z][a-z0-9]*(-[a-z0-9]+)*$')",
                                    "message": "a loop's name begins with a letter and has no dots: write one as "
                                    "flight-delay",
                                },
                            ],
                        }
                    },
                }
            ],
        },
    }
