"""From one YAML file to one model, with every mistake as a problem that has its line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path as FilePath
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from millstream.project.problem import Fault, Path, Problem, Refused, meant, nearest, visible
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


@dataclass(frozen=True, kw_only=True)
class Reading(Generic[M]):
    """What could be made of one file."""

    item: M | None
    """With stand-ins for what could not be read; None where those are not enough."""
    problems: list[Problem]
    gaps: frozenset[Path]
    """What could not be read, and what that may have been meant for: whatever rests on it cannot be judged."""

    def reads(self, key: str) -> bool:
        """Whether all that stands at the outermost `key` could be read."""
        return not any(gap[:1] in ((), (key,)) for gap in self.gaps)


def read_model(source: Source, model: type[M], stand_ins: Mapping[str, Any], folder: FilePath) -> Reading[M]:
    """The model with all that is wrong in its file. Never raises for what is in the file.

    `folder`: where the file lies, for others that it names.

    A wrong value is left out and a required one replaced by that of `stand_ins`, so that the rest can still be judged.
    """
    gaps = {_around_list(path) for path in source.unread}
    if () in gaps:
        return Reading(item=None, problems=[], gaps=frozenset(gaps))
    told: list[Fault] | None = None
    item, before = None, None
    # What is mended may not fit what was read by it, like settings by params: then that is left out, too, and not told, for it
    # may be a consequence. Gaps only grow.
    while item is None and gaps != before:
        before = set(gaps)
        try:
            said = _mended(source.data, gaps, stand_ins) if gaps else source.data
            item = model.model_validate(said, context={"folder": folder})
        except ValidationError as error:
            faults = [fault for one in error.errors(include_url=False) for fault in _faults(source.data, model, one)]
            if told is None:
                told = visible(faults, gaps | {path for fault in faults for path in fault.hides})
            gaps |= {path for fault in faults for path in (*map(_around_list, fault.basis), *fault.hides)}
    problems = [source.problem(fault.path, fault.message, fault.remedy) for fault in told or ()]
    return Reading(item=item, problems=problems, gaps=frozenset(gaps))


def _around_list(path: Path) -> Path:
    """`path`, or the list that it lies in: without one of its items a list says something else."""
    return tuple(takewhile(lambda part: isinstance(part, str), path))


def _mended(data: Mapping[str, Any], gaps: Iterable[Path], stand_ins: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `data` with a stand-in at each of `gaps`, or nothing there where none is needed."""
    mended = deepcopy(dict(data))
    for *way, key in sorted(filter(None, gaps), key=len, reverse=True):
        place, instead = _at(mended, way), _at(stand_ins, way)
        place.pop(key, None)
        if key in instead:
            place[key] = instead[key]
    return mended


def _at(data: Any, path: Sequence[str | int]) -> dict[Any, Any]:
    """The mapping at `path`; an empty one where there is none."""
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def faults_of(model: type[BaseModel], data: Mapping[str, Any], error: ValidationError) -> list[Fault]:
    """What `model` has against `data`, for a validator of ours that picks the model of a part by itself."""
    return [fault for detail in error.errors(include_url=False) for fault in _faults(data, model, detail)]


def _faults(data: Mapping[str, Any], model: type[BaseModel], detail: ErrorDetails) -> Iterator[Fault]:
    path: Path = tuple(detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Refused):
        for fault in cause.faults:
            rests_on, hides = (tuple((*path, *rest) for rest in rests) for rests in (fault.basis, fault.hides))
            yield replace(fault, path=(*path, *fault.path), rests_on=rests_on, hides=hides)
        return
    message, remedy = _words(model, path, detail)
    if detail["type"] == "missing":
        yield Fault(path=path[:-1], message=message, remedy=remedy, rests_on=(path,))
    elif detail["type"] == "extra_forbidden":
        absent = set(_keys(_model_at(model, path[:-1]))).difference(_at(data, path[:-1]))
        slip = meant(str(path[-1]), absent)
        yield Fault(path=path, message=message, remedy=remedy, hides=((*path[:-1], slip),) if slip else ())
    else:
        yield Fault(path=path, message=message, remedy=remedy)


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
        return f"unknown {value!r:.60}", nearest(str(value), _choices(str(context["expected"])))
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
    """A missing key is explained by the reason that stands beside its field, or by what its own keys say together."""
    section = _model_at(model, (key,))
    for name, field in model.model_fields.items():
        said = field.description or (section.__doc__ if section is not model else None)
        if key in (name, field.alias) and said:
            sentence = " ".join(said.split()).partition(". ")[0].rstrip(".")
            acronym = sentence[1:2].isupper()  # JSON Schema …
            return f"write {key}: {sentence if acronym else sentence[0].lower() + sentence[1:]}"
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
