"""What no file can know alone: streams, loops and features have to fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from millstream.project.catalogue import DescribedView, FeatureCatalogue, join_keys
from millstream.project.event_schema import NUMBERS, SCALARS
from millstream.project.loop import Loop
from millstream.project.problem import Problem, found, nearest
from millstream.project.source import Source
from millstream.project.stream import Stream

_KINDS = {"number": NUMBERS, "text": frozenset({"string"}), "truth": frozenset({"boolean"})}
"""What a label expression needs of a field, in JSON's types; null is always allowed."""


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Streams whose files could not be read, so that nobody is told twice about one mistake."""

    names: frozenset[str]
    nameless: bool
    """A broken file does not even tell which stream it declares: it may be any."""

    def __contains__(self, name: str) -> bool:
        return self.nameless or name in self.names


def loop_problems(
    source: Source,
    loop: Loop,
    streams: Mapping[str, Stream],
    unread: Unread,
    catalogue: FeatureCatalogue | None,
) -> Iterator[Problem]:
    """Mistakes of one loop against the streams and, where there is one, the catalogue.

    A reference to a stream that is `unread` is not judged: what is wrong with that stream is reported already.
    """
    asked = streams.get(loop.predict.on)
    outcome = streams.get(loop.label.stream)
    for name, path in ((loop.predict.on, ("predict", "on")), (loop.label.stream, ("label", "from"))):
        if name not in streams and name not in unread:
            yield source.problem(path, f"no stream {name!r} in streams/", nearest(name, streams))
    if asked is not None:
        yield from _question_problems(source, loop, asked)
    if outcome is not None:
        yield from _value_problems(source, loop, outcome)
    yield from _by_problems(source, loop, asked, outcome)
    if catalogue is not None:
        yield from _feature_problems(source, loop, asked, catalogue)


def _question_problems(source: Source, loop: Loop, asked: Stream) -> Iterator[Problem]:
    """The fields that predict takes from the asking event."""
    for position, name in enumerate(loop.predict.inputs):
        path = ("predict", "inputs", position)
        types = asked.types_of(name)
        if name == asked.time:
            remedy = "let the producer send what matters of it, like the minute of the day"
            yield source.problem(path, f"{name!r} is the event time, which only ever grows", remedy)
        else:
            yield from _scalar_problems(source, path, asked, name, types)
    if loop.predict.id is None and asked.id is None:
        remedy = f"write predict.id, or id in the stream {asked.name}"
        yield source.problem(("predict",), "nothing tells one question from another", remedy)
    elif loop.predict.id is not None and asked.types_of(loop.predict.id) not in ({"string"}, {"integer"}):
        message = f"{loop.predict.id!r} of stream {asked.name} is no id"
        yield source.problem(("predict", "id"), message, "name a field of type string or integer, without null")


def _value_problems(source: Source, loop: Loop, outcome: Stream) -> Iterator[Problem]:
    """The label expression against the types of the outcome's fields."""
    value = loop.label.value
    sound = True
    for name in value.fields:
        for problem in _scalar_problems(source, ("label", "value"), outcome, name, outcome.types_of(name)):
            sound = False
            yield problem
    for name, kind in value.uses if sound else ():
        types = outcome.types_of(name) - {"null"}
        if not types <= _KINDS[kind]:
            message = (
                f"{value.text!r} needs a {kind} and {name!r} of stream {outcome.name} is {' or '.join(sorted(types))}"
            )
            yield source.problem(("label", "value"), message, "compare like with like")
    if sound and value.kind == "any" and outcome.types_of(value.fields[0]) - {"null"} != {"boolean"}:
        message = f"{value.text!r} is not true or false, which task binary learns"
        yield source.problem(("label", "value"), message, f"compare it, like {value.text} >= 15")


def _by_problems(source: Source, loop: Loop, asked: Stream | None, outcome: Stream | None) -> Iterator[Problem]:
    """The field that joins a question with its outcome has to be in both, as the same kind of key."""
    path, by = ("label", "by"), loop.label.by
    sides = [stream for stream in (asked, outcome) if stream is not None]
    types = {stream.name: stream.types_of(by) for stream in sides}
    for stream in sides:
        if by not in _fields(stream):
            yield source.problem(path, f"no field {by!r} in stream {stream.name}", nearest(by, _fields(stream)))
        elif types[stream.name] not in ({"string"}, {"integer"}):
            remedy = "name a field of type string or integer, without null"
            yield source.problem(path, f"{by!r} of stream {stream.name} cannot be a key", remedy)
        elif by not in stream.event_schema.get("required", []):
            remedy = f"add {by} to required in streams/"
            yield source.problem(path, f"{by!r} is not in every event of stream {stream.name}", remedy)
    if len({frozenset(t) for t in types.values()}) > 1 and all(by in _fields(stream) for stream in sides):
        words = " and ".join(f"{' or '.join(sorted(t)) or 'unknown'} in {name}" for name, t in types.items())
        yield source.problem(path, f"{by!r} is {words}", "write the same type in both streams")


def _feature_problems(
    source: Source, loop: Loop, asked: Stream | None, catalogue: FeatureCatalogue
) -> Iterator[Problem]:
    """The FeatureService, its join keys, and the columns that drift is told to watch."""
    path, name = ("predict", "features"), loop.predict.features
    features = catalogue.services.get(name)
    if features is None:
        yield source.problem(path, f"no FeatureService {name!r} in features/", found(sorted(catalogue.services)))
        return
    carried = join_keys(catalogue, name) if asked is None else _fields(asked)
    for key in join_keys(catalogue, name):
        if key not in carried:
            message = f"FeatureService {name!r} is looked up by {key!r}, which stream {loop.predict.on} does not carry"
            yield source.problem(path, message, nearest(key, carried))
    columns = [*loop.predict.inputs, *features]
    for position, column in enumerate(loop.drift.columns or ()):
        if column not in columns:
            message = f"{column!r} is neither an input nor a feature"
            yield source.problem(("drift", "columns", position), message, nearest(column, columns))


def view_problems(
    views: Mapping[str, DescribedView], streams: Mapping[str, Stream], unread: Unread
) -> Iterator[Problem]:
    """Mistakes of the Feast views against the streams whose events they aggregate."""

    def problem(view: str, message: str, remedy: str) -> Problem:
        return Problem(file="features", line=None, path=view, message=message, remedy=remedy)

    for name, view in views.items():
        stream = streams.get(view.stream)
        if stream is None:
            if view.stream not in unread:
                yield problem(name, f"no stream {view.stream!r} in streams/", nearest(view.stream, streams))
            continue
        for key in view.keys:
            if key not in _fields(stream):
                yield problem(
                    name, f"no field {key!r} in stream {stream.name} to join by", nearest(key, _fields(stream))
                )
        for aggregate in view.aggregates:
            types = stream.types_of(aggregate.column) - {"null"}
            where = f"{name}.{aggregate.name}"
            if aggregate.column not in _fields(stream):
                message = f"no field {aggregate.column!r} in stream {stream.name} to aggregate"
                yield problem(where, message, nearest(aggregate.column, _fields(stream)))
            elif aggregate.function != "count" and (not types or not types <= NUMBERS):
                message = (
                    f"{aggregate.function} of {aggregate.column!r}, which is {' or '.join(sorted(types)) or 'no type'}"
                )
                yield problem(where, message, "aggregate a number or an integer, or count")


def _scalar_problems(
    source: Source, path: tuple[str | int, ...], stream: Stream, name: str, types: frozenset[str]
) -> Iterator[Problem]:
    if name not in _fields(stream):
        yield source.problem(path, f"no field {name!r} in stream {stream.name}", nearest(name, _fields(stream)))
    elif not types or not types <= SCALARS or types == {"null"}:
        message = f"{name!r} of stream {stream.name} is {' or '.join(sorted(types)) or 'of no stated type'}"
        yield source.problem(path, message, "write a text, number, integer or boolean type in the stream")


def _fields(stream: Stream) -> list[str]:
    return list(stream.event_schema.get("properties", {}))
