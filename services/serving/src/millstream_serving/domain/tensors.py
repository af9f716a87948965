"""Tensors of the Open Inference Protocol (version 2): a name, a datatype, a shape, and the values in JSON or as bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from millstream.errors import Refusal

BYTES, BOOL, FP32 = "BYTES", "BOOL", "FP32"
NUMBERS = {
    BOOL: np.dtype("?"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""Datatype → its bytes: little-endian, as the protocol's servers and clients have them. BF16 is not taken."""

MOST_DIMENSIONS = 2
LARGEST_DIMENSION = 2_000
"""Rows or columns: what is larger is refused before its values are looked at, one by one, while nobody else is answered."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked or answered: `values` flat, in row-major order. Texts are an array of objects that are all str."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any]


def bad(message: str) -> Refusal:
    """A request that says something wrong; `message` says what to write instead."""
    return Refusal("bad_request", message)


def size_of(name: str, datatype: object, shape: object) -> int:
    """Values of a tensor. Raises Refusal for a datatype or a shape that is none."""
    if not isinstance(datatype, str) or (datatype != BYTES and datatype not in NUMBERS):
        raise bad(f"input {name!r}: datatype {datatype!r:.40}; send one of {', '.join([*NUMBERS, BYTES])}")
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not 1 <= len(shape) <= MOST_DIMENSIONS:
        raise bad(f"input {name!r}: shape {shape!r:.60}; send [n] or [n, 1], n being the rows")
    if any(type(size) is not int or not 0 <= size <= LARGEST_DIMENSION for size in shape):
        raise bad(f"input {name!r}: shape {shape!r:.60}; a dimension is a whole number from 0 to {LARGEST_DIMENSION}")
    return math.prod(shape)


def from_bytes(name: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> Tensor:
    """Of the protocol's raw form: numbers side by side, texts each behind its length in four bytes. Raises Refusal."""
    size = size_of(name, datatype, shape)
    if datatype == BYTES:
        values = _texts(name, size, bytes(raw))
    else:
        kind = NUMBERS[datatype]
        wanted = size * kind.itemsize
        if len(raw) != wanted:
            raise bad(f"input {name!r}: {len(raw)} bytes; {datatype} of shape {list(shape)} has {wanted}")
        # Any byte but 0 is true, and numpy would keep it as it is.
        values = np.frombuffer(raw, np.uint8) != 0 if datatype == BOOL else np.frombuffer(raw, kind)
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), values=values)


def from_values(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Tensor:
    """Of values one by one, flat or in rows as the shape has them; null is NaN, or an empty text. Raises Refusal."""
    size = size_of(name, datatype, shape)
    flat = _flat(name, shape, data)
    if len(flat) != size:
        raise bad(f"input {name!r}: {len(flat)} values; shape {list(shape)} has {size}")
    allowed, called = _ALLOWED[datatype[:2]]
    if not allowed.issuperset(map(type, flat)):
        position, odd = next((at, value) for at, value in enumerate(flat) if type(value) not in allowed)
        more = "" if odd is not None else "; a null is NaN in FP32 or FP64"
        raise bad(f"input {name!r}: value {position} is {odd!r:.60}; {datatype} takes {called}{more}")
    if datatype == BYTES:
        return Tensor(name=name, datatype=datatype, shape=tuple(shape), values=_objects([one or "" for one in flat]))
    kind = NUMBERS[datatype]
    try:
        values = numbers_of(datatype, flat) if kind.kind == "f" else np.array(flat, kind)
    except OverflowError as error:
        raise bad(f"input {name!r}: a number is too large for {datatype}; send a wider datatype") from error
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), values=values)


def numbers_of(datatype: str, data: Sequence[float | None]) -> NDArray[Any]:
    """`data` as the floats of `datatype`; beyond float32 is infinity, in training as here. Raises OverflowError."""
    with np.errstate(over="ignore"):
        return np.array(data, np.float64).astype(NUMBERS[datatype], copy=False)


def of_numbers(name: str, shape: Sequence[int], values: NDArray[np.float32]) -> Tensor:
    """What a model answers."""
    return Tensor(name=name, datatype=FP32, shape=tuple(shape), values=values.astype("<f4").reshape(-1))


def of_texts(name: str, values: Sequence[str]) -> Tensor:
    """One text a row."""
    return Tensor(name=name, datatype=BYTES, shape=(len(values),), values=_objects(values))


def to_bytes(tensor: Tensor) -> bytes:
    """The protocol's raw form."""
    if tensor.datatype != BYTES:
        return tensor.values.tobytes()
    texts = [text.encode() for text in tensor.values]
    return b"".join(part for text in texts for part in (struct.pack("<I", len(text)), text))


def _texts(name: str, size: int, raw: bytes) -> NDArray[np.object_]:
    """`size` texts, each behind its length. Ends with the bytes, whatever the lengths say."""
    texts: list[str] = []
    at, end = 0, len(raw)
    while at < end and len(texts) < size:
        (length,) = struct.unpack_from("<I", raw, at) if at + 4 <= end else (end,)
        at += 4 + length
        if at > end:
            raise bad(f"input {name!r}: text {len(texts)} ends behind the bytes; each text has its length in 4 bytes")
        texts.append(text_from(name, raw[at - length : at]))
    if at != end or len(texts) != size:
        raise bad(f"input {name!r}: {len(texts)} texts in {at} of {end} bytes; the shape has {size}")
    return _objects(texts)


def text_from(name: str, raw: bytes) -> str:
    """Raises Refusal for what is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise bad(f"input {name!r}: a text is not UTF-8 at its byte {error.start}; send UTF-8") from error


def _flat(name: str, shape: Sequence[int], data: Sequence[Any]) -> Sequence[Any]:
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise bad(f"input {name!r}: data is {data!r:.60}; send a list of {shape[0]} values")
    if len(shape) == 1 or not any(type(row) is list for row in data):
        return data
    for row in data:
        if type(row) is not list or len(row) != shape[1]:
            raise bad(f"input {name!r}: a row of data is {row!r:.60}; send lists of {shape[1]}, or all values flat")
    return [value for row in data for value in row]


def _objects(values: Sequence[str]) -> NDArray[np.object_]:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


_NULL = type(None)
_WHOLE = (frozenset({int}), "whole numbers")
_ALLOWED: dict[str, tuple[frozenset[type], str]] = {
    "BO": (frozenset({bool}), "true and false"),
    "BY": (frozenset({str, _NULL}), "texts and null"),
    "FP": (frozenset({int, float, _NULL}), "numbers and null"),
    "IN": _WHOLE,
    "UI": _WHOLE,
}
"""By the first letters of a datatype: numpy would take a text for a number, and true for 1."""
