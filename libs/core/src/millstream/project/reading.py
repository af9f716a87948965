"""From one YAML file to one model, with every mistake as a problem that has its line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from millstream.project.problem import Path, Problem, Refused, known, nearest
from millstream.project.source import Source

M = TypeVar("M", bound=BaseModel)

_KINDS = {
    "string_type": ("text", "write text; put it in quotes if it looks like a number"),
    "int_type": ("a whole number", "write digits only, like 5000"),
    "float_type": ("a number", "write digits, like 0.2"),
    "bool_type": ("true or false", "write true or false"),
    "tuple_type": ("a list", "write a list, like [one, two]"),
    "dict_type": ("a mapping", "write keys and values"),
    "model_type": ("a mapping", "write keys and values"),
    "model_attributes_type": ("a mapping", "write keys and values"),
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def read_model(source: Source, model: type[M]) -> tuple[M | None, list[Problem]]:
    """The model, or all that is wrong with the file. Never raises for what is in the file."""
    try:
        return model.model_validate(source.data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [problem for detail in details for problem in _problems(source, model, detail)]


def _problems(source: Source, model: type[BaseModel], detail: ErrorDetails) -> Iterator[Problem]:
    path: Path = tuple(detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Refused):
        for fault in cause.faults:
            yield source.problem((*path, *fault.path), fault.message, fault.remedy)
    else:
        where = path[:-1] if detail["type"] == "missing" else path
        yield source.problem(where, *_words(model, path, detail))


def _words(model: type[BaseModel], path: Path, detail: ErrorDetails) -> tuple[str, str]:
    """What is wrong and what to write, for one of pydantic's own errors or a ValueError of ours."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        message, separator, remedy = str(context["error"]).partition("; ")
        return message, remedy if separator else "write another value"
    if kind == "missing":
        return f"{path[-1]!r} is missing", _how_to_write(_model_at(model, path[:-1]), str(path[-1]))
    if kind == "extra_forbidden":
        return f"unknown key {path[-1]!r}", nearest(str(path[-1]), _keys(_model_at(model, path[:-1])))
    if kind == "literal_error":
        return f"unknown {value!r:.60}", known(_choices(str(context["expected"])))
    if kind in _KINDS:
        wanted, remedy = _KINDS[kind]
        return f"{value!r:.60} is not {wanted}", remedy
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{value!r:.60} is out of range", f"write {words} {context[bound]:.15g}"
    if kind in ("too_short", "string_too_short"):
        return "is empty", "write at least one" if kind == "too_short" else "write something"
    if kind in ("too_long", "string_too_long"):
        return "is too long", f"write at most {context['max_length']}"
    return detail["msg"], "write another value"


def _choices(expected: str) -> list[str]:
    """pydantic joins a Literal's choices as `'a', 'b' or 'c'`."""
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _how_to_write(model: type[BaseModel], key: str) -> str:
    """A missing key is explained by the reason that stands beside its field."""
    for name, field in model.model_fields.items():
        if key in (name, field.alias) and field.description:
            sentence = " ".join(field.description.split()).partition(". ")[0].rstrip(".")
            return f"write {key}: {sentence[0].lower()}{sentence[1:]}"
    return f"write {key}"


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model that reads the mapping at `path`."""
    for part in path:
        annotations: list[Any] = [f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)]
        for annotation in annotations:
            for candidate in (annotation, *get_args(annotation)):
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    model = candidate
    return model
