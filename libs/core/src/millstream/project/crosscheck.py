"""What no file can know alone: streams, loops and features have to fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from millstream.contracts.tasks import Task
from millstream.project.catalogue import FeatureCatalogue, join_keys
from millstream.project.event_schema import NUMBERS, SCALARS
from millstream.project.loop import LEARNED, REMEDY, Loop
from millstream.project.problem import Fault, Path, Problem, found, nearest
from millstream.project.stream import Stream
from millstream_expression import Expression, compile_expression

_KINDS = {"number": NUMBERS, "text": frozenset({"string"}), "truth": frozenset({"boolean"})}
"""What an expression needs of a field, in JSON's types; null is always allowed."""
_LEARNED = {
    Task.BINARY: frozenset({"boolean"}),
    Task.MULTICLASS: frozenset({"string", "integer"}),
    Task.REGRESSION: NUMBERS,
}
"""What a label that is a field may be: of a class there is a name, and a number with a fraction has none."""


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Streams whose files could not be read, so that nobody is told twice about one mistake."""

    names: frozenset[str]
    nameless: bool
    """A broken file does not even tell which stream it declares: it may be any."""
    lateness: frozenset[str] = frozenset()
    """Streams of which all else is known."""

    def __contains__(self, name: str) -> bool:
        return self.nameless or name in self.names


def loop_faults(
    loop: Loop, streams: Mapping[str, Stream], unread: Unread, catalogue: FeatureCatalogue | None
) -> Iterator[Fault]:
    """Mistakes of one loop against the streams and, where there is one, the catalogue.

    A reference to a stream that is `unread` is not judged: what is wrong with that stream is reported already.
    """
    asked = streams.get(loop.predict.on)
    outcome = streams.get(loop.label.stream)
    for name, path in ((loop.predict.on, ("predict", "on")), (loop.label.stream, ("label", "from"))):
        if name not in streams and name not in unread:
            yield Fault(
                path=path, message=f"no stream {name!r} in streams/", remedy=_nearest_stream(name, streams, unread)
            )
    if asked is not None:
        yield from _question_faults(loop, asked)
    if outcome is not None:
        yield from _value_faults(loop, outcome)
    yield from _by_faults(loop, asked, outcome)
    if catalogue is not None:
        yield from _feature_faults(loop, asked, catalogue)


def _question_faults(loop: Loop, asked: Stream) -> Iterator[Fault]:
    """The fields that predict takes from the asking event."""
    for position, name in enumerate(loop.predict.inputs):
        place = ("predict", "inputs", position)
        if name == asked.time:
            remedy = "let the producer send what matters of it, like the minute of the day"
            yield Fault(path=place, message=f"{name!r} is the event time, which only ever grows", remedy=remedy)
        else:
            yield from _scalar_faults(place, asked, name)
    yield from _content_faults(loop, asked)
    path = ("predict", "id")
    if loop.predict.id is None and asked.id is None:
        message, remedy = (
            "nothing tells one question from another",
            f"write predict.id, or id in the stream {asked.name}",
        )
        yield Fault(path=("predict",), message=message, remedy=remedy, rests_on=(path,))
    elif loop.predict.id is not None and asked.types_of(loop.predict.id) not in ({"string"}, {"integer"}):
        message = f"{loop.predict.id!r} of stream {asked.name} is no id"
        yield Fault(path=path, message=message, remedy="name a field of type string or integer, without null")
    if loop.rollout.by is not None:
        yield from _entity_faults(loop.rollout.by, asked)


def _entity_faults(by: str, asked: Stream) -> Iterator[Fault]:
    """The field by which a canary splits: serving would fall back to the record key in silence, and split by that."""
    path = ("rollout", "by")
    if by not in _fields(asked):
        yield Fault(path=path, message=f"no field {by!r} in stream {asked.name}", remedy=nearest(by, _fields(asked)))
    elif (types := asked.types_of(by) - {"null"}) not in ({"string"}, {"integer"}):
        message = f"{by!r} of stream {asked.name} is {' or '.join(sorted(types)) or 'of no stated type'}"
        yield Fault(path=path, message=message, remedy="name a field of type string or integer")


def _content_faults(loop: Loop, asked: Stream) -> Iterator[Fault]:
    """The texts and embeddings of the asking event that drift watches."""
    for key, wanted, remedy in (
        ("text", "string", "name a field of type string"),
        ("embedding", "array", "name a list of numbers: type: array, items: {type: number}"),
    ):
        for position, name in enumerate(getattr(loop.drift, key)):
            path, types = ("drift", key, position), asked.types_of(name) - {"null"}
            if key == "embedding" and name in loop.drift.text:
                continue  # told already
            if name not in _fields(asked):
                message = f"no field {name!r} in stream {asked.name}"
                yield Fault(path=path, message=message, remedy=nearest(name, _fields(asked)))
            elif types != {wanted}:
                message = f"{name!r} of stream {asked.name} is {' or '.join(sorted(types)) or 'of no stated type'}"
                yield Fault(path=path, message=message, remedy=remedy)


def _value_faults(loop: Loop, outcome: Stream) -> Iterator[Fault]:
    """The label expression against the types of the outcome's fields."""
    path, value = ("label", "value"), loop.label.value
    unfit = [fault for name in value.fields for fault in _scalar_faults(path, outcome, name)]
    yield from unfit
    if unfit:
        return
    for name, kind in value.uses:
        types = outcome.types_of(name) - {"null"}
        if not types <= _KINDS[kind]:
            message = (
                f"{value.text!r} needs a {kind} and {name!r} of stream {outcome.name} is {' or '.join(sorted(types))}"
            )
            yield Fault(path=path, message=message, remedy="compare like with like")
    task = loop.model.task
    if value.kind == "any" and not outcome.types_of(value.fields[0]) - {"null"} <= _LEARNED[task]:
        message = f"{value.text!r} is not {LEARNED[task]}, which task {task} learns"
        remedy = f"compare it, like {value.text} >= 15" if task is Task.BINARY else REMEDY[task]
        yield Fault(path=path, message=message, remedy=remedy, rests_on=(path, ("model", "task")))


def _by_faults(loop: Loop, asked: Stream | None, outcome: Stream | None) -> Iterator[Fault]:
    """The field that joins a question with its outcome has to be in both, as the same kind of key."""
    path, by = ("label", "by"), loop.label.by
    sides = [stream for stream in (asked, outcome) if stream is not None]
    types = {stream.name: stream.types_of(by) for stream in sides}
    for stream in sides:
        if by not in _fields(stream):
            message = f"no field {by!r} in stream {stream.name}"
            yield Fault(path=path, message=message, remedy=nearest(by, _fields(stream)))
        elif types[stream.name] not in ({"string"}, {"integer"}):
            remedy = "name a field of type string or integer, without null"
            yield Fault(path=path, message=f"{by!r} of stream {stream.name} cannot be a key", remedy=remedy)
        elif by not in stream.event_schema.get("required", []):
            message = f"{by!r} is not in every event of stream {stream.name}"
            yield Fault(path=path, message=message, remedy=f"add {by} to required in streams/")
    if len({frozenset(t) for t in types.values()}) > 1 and all(by in _fields(stream) for stream in sides):
        words = " and ".join(f"{' or '.join(sorted(t)) or 'unknown'} in {name}" for name, t in types.items())
        yield Fault(path=path, message=f"{by!r} is {words}", remedy="write the same type in both streams")


def _feature_faults(loop: Loop, asked: Stream | None, catalogue: FeatureCatalogue) -> Iterator[Fault]:
    """The FeatureService, its join keys, and the columns that drift is told to watch."""
    path, name = ("predict", "features"), loop.predict.features
    if (services := catalogue.services) is None:
        return
    features = services.get(name)
    if features is None:
        message = f"no FeatureService {name!r} in features/"
        yield Fault(path=path, message=message, remedy=found(sorted(services)))
        return
    carried = join_keys(catalogue, name) if asked is None else _fields(asked)
    for key in join_keys(catalogue, name):
        if key not in carried:
            message = f"FeatureService {name!r} is looked up by {key!r}, which stream {loop.predict.on} does not carry"
            yield Fault(path=path, message=message, remedy=nearest(key, carried))
    columns = [*loop.predict.inputs, *features]
    watched = loop.drift.columns
    for position, column in enumerate(watched if isinstance(watched, tuple) else ()):
        if column not in columns:
            place = ("drift", "columns", position)
            message, remedy = f"{column!r} is neither an input nor a feature", nearest(column, columns)
            yield Fault(path=place, message=message, remedy=remedy, rests_on=(place, ("predict", "inputs")))


def view_problems(catalogue: FeatureCatalogue, streams: Mapping[str, Stream], unread: Unread) -> Iterator[Problem]:
    """Mistakes of the Feast views against the streams whose events they aggregate."""

    def problem(view: str, path: str, message: str, remedy: str) -> Problem:
        file, line = catalogue.places.get(view, ("", None))
        return Problem(file=f"features/{file}".rstrip("/"), line=line, path=path, message=message, remedy=remedy)

    for name, view in catalogue.views.items():
        stream = streams.get(view.stream)
        if stream is None:
            if view.stream not in unread:
                remedy = _nearest_stream(view.stream, streams, unread)
                yield problem(name, name, f"no stream {view.stream!r} in streams/", remedy)
            continue
        if view.time_field != stream.time:
            message = f"its time is {view.time_field!r}, that of stream {stream.name} is {stream.time!r}"
            yield problem(name, name, message, f"write timestamp_field={stream.time!r}")
        if view.lateness != stream.lateness and stream.name not in unread.lateness:
            said, wanted = timedelta(microseconds=view.lateness), timedelta(microseconds=stream.lateness)
            message = f"its lateness is {said}, that of stream {stream.name} is {wanted}"
            remedy = "write stream_source('../streams/FILE.yaml') without lateness=, which takes it from there"
            yield problem(name, name, message, remedy)
        if view.event_id is None and stream.id is not None:
            message = f"it knows no id of its events, that of stream {stream.name} is {stream.id!r}"
            remedy = f"write stream_source('../streams/FILE.yaml'), or id={stream.id!r}: else what is told twice counts twice"
            yield problem(name, name, message, remedy)
        for key in view.keys:
            if key not in _fields(stream):
                message = f"no field {key!r} in stream {stream.name} to join by"
                yield problem(name, name, message, nearest(key, _fields(stream)))
            elif not (types := stream.types_of(key) - {"null"}) or not types <= SCALARS:
                message = f"{key!r} of stream {stream.name} is {' or '.join(sorted(types)) or 'of no stated type'}"
                yield problem(name, name, message, "join by a text, integer or boolean; write that type in the stream")
        for aggregate in view.aggregates:
            if aggregate.function == "count" and aggregate.column in ("", "*"):
                continue  # the events themselves
            types = stream.types_of(aggregate.column) - {"null"}
            where = f"{name}.{aggregate.name}"
            if aggregate.column not in _fields(stream):
                message = f"no field {aggregate.column!r} in stream {stream.name} to aggregate"
                yield problem(name, where, message, nearest(aggregate.column, _fields(stream)))
            elif aggregate.function == "count_distinct" and (not types or not types <= SCALARS):
                is_ = " or ".join(sorted(types)) or "of no stated type"
                message = f"count_distinct of {aggregate.column!r}, which is {is_}"
                yield problem(name, where, message, "count the different values of a text, number, integer or boolean")
            elif not aggregate.function.startswith("count") and (not types or not types <= NUMBERS):
                message = (
                    f"{aggregate.function} of {aggregate.column!r}, which is {' or '.join(sorted(types)) or 'no type'}"
                )
                yield problem(name, where, message, "aggregate a number or an integer, or count")

        if view.where is not None:
            for message, remedy in _filter_faults(compile_expression(view.where), stream):
                yield problem(name, f"{name}.where", message, remedy)


def _filter_faults(where: Expression, stream: Stream) -> Iterator[tuple[str, str]]:
    """The filter of a view against the types of the stream's fields."""
    unfit = [fault for name in where.fields for fault in _scalar_faults((), stream, name)]
    for fault in unfit:
        yield fault.message, fault.remedy
    for name, kind in () if unfit else where.uses:
        types = stream.types_of(name) - {"null"}
        if not types <= _KINDS[kind]:
            is_ = " or ".join(sorted(types))
            yield (
                f"{where.text!r} needs a {kind} and {name!r} of stream {stream.name} is {is_}",
                "compare like with like",
            )
    if not unfit and where.kind == "any" and stream.types_of(where.fields[0]) - {"null"} != {"boolean"}:
        yield f"{where.text!r} is not true or false", f"compare it, like {where.text} > 0"


def _scalar_faults(path: Path, stream: Stream, name: str) -> Iterator[Fault]:
    types = stream.types_of(name)
    if name not in _fields(stream):
        message = f"no field {name!r} in stream {stream.name}"
        yield Fault(path=path, message=message, remedy=nearest(name, _fields(stream)))
    elif not types or not types <= SCALARS or types == {"null"}:
        message = f"{name!r} of stream {stream.name} is {' or '.join(sorted(types)) or 'of no stated type'}"
        yield Fault(path=path, message=message, remedy="write a text, number, integer or boolean type in the stream")


def _nearest_stream(name: str, streams: Mapping[str, Stream], unread: Unread) -> str:
    return nearest(name, unread.names.union(streams))


def _fields(stream: Stream) -> list[str]:
    return list(stream.event_schema.get("properties", {}))
