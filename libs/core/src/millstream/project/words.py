"""Two shapes that loop files use often: a list without repeats, and `all` instead of a value."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Strict,
    WrapSerializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

T = TypeVar("T")


def _unique(values: tuple[T, ...]) -> tuple[T, ...]:
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{value!r} stands there twice; name it once")
    return values


def _read_all(value: object) -> object:
    if value is None:
        raise ValueError("null is neither all nor a choice; write all")
    return None if value == "all" else value


def _write_all(value: Any, write: SerializerFunctionWrapHandler) -> Any:
    return "all" if value is None else write(value)


class _AllInSchema:
    """Editors are offered `all` where code has None."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        options = [option for option in schema.pop("anyOf", []) if option != {"type": "null"}]
        return {"anyOf": [{"const": "all"}, *options], **schema}


OneOrMore = Annotated[tuple[T, ...], Strict(False), Field(min_length=1, max_length=1000), AfterValidator(_unique)]
"""A list in the file, a tuple in code."""
UpToFive = Annotated[tuple[T, ...], Strict(False), Field(max_length=5), AfterValidator(_unique)]
"""The same, for what is named sparingly; none is fine."""
AllOr = Annotated[T | None, BeforeValidator(_read_all), WrapSerializer(_write_all), _AllInSchema()]
"""`all` in the file, None in code."""
