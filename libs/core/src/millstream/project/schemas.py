"""JSON Schemas of the project files, for editors to complete from: generated from the models, so they cannot disagree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from millstream.project.event_schema import DIALECT
from millstream.project.loop import Loop
from millstream.project.stream import Stream


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """`model` and every model inside it."""
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _models(part)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a project file, its keys in the models' order and its defaults as a file writes them."""
    schema: dict[str, Any] = {"$schema": DIALECT} | model.model_json_schema(by_alias=True)
    for part in _models(model):
        written = part.model_construct().model_dump(by_alias=True, mode="json", warnings=False)
        properties = (schema if part is model else schema["$defs"][part.__name__])["properties"]
        for name, declared in properties.items():
            declared.pop("title", None)  # pydantic's titles only repeat the key
            if "default" in declared:
                declared["default"] = written[name]  # as in a file, 1h; pydantic gives code's microseconds
    return schema


def project_schemas() -> dict[str, str]:
    """Text of each file of `millstream/project/schemas/`, by its name."""
    models: dict[str, type[BaseModel]] = {"stream.schema.json": Stream, "loop.schema.json": Loop}
    return {name: json.dumps(schema_of(model), indent=2, sort_keys=True) + "\n" for name, model in models.items()}
