"""One request of the Open Inference Protocol and its answer, whichever way they travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from millstream_serving.domain.tensors import Tensor, bad, numbers_of

LONGEST_NAME = 256
"""Characters of a name or an id: it is said again in answers and errors, and becomes a header of the record."""


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    tensors: Sequence[Tensor]
    id: str = ""
    """Said again in the answer; nothing else hangs on it, for many clients count theirs from 1."""
    parameters: Mapping[str, Any] = msgspec.field(default_factory=dict)
    outputs: Sequence[str] = ()
    """Names of the tensors to answer with; empty: the model's own."""


class InferResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered."""

    model: str
    version: str
    """Of who answered the first row."""
    id: str
    parameters: Mapping[str, str]
    tensors: Sequence[Tensor]


class TableRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The commonest request: one tensor of numbers and nothing beside it. Its numbers stay a list until those of all who ask
    at the same time are made an array in one piece: an array of each would cost more than its row's trees."""

    name: str
    datatype: str
    rows: int
    width: int
    data: list[float]
    """Row by row."""
    id: str = ""

    def request(self) -> InferRequest:
        """The same as any request."""
        values = numbers_of(self.datatype, self.data)
        tensor = Tensor(name=self.name, datatype=self.datatype, shape=(self.rows, self.width), values=values)
        return InferRequest(id=self.id, tensors=(tensor,))


class TableResponse(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Its answer."""

    model: str
    version: str
    """Of who answered the first row."""
    id: str
    parameters: Mapping[str, str]
    output: str
    shape: Sequence[int]
    data: list[float]
    """Row by row."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor as metadata describes it; -1 stands for the rows."""

    name: str
    datatype: str
    shape: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What a client has to know to ask a loop."""

    name: str
    versions: Sequence[str]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    platform: str = "onnx_onnxv1"


def name_in(what: str, value: object) -> str:
    """`value` as a name or an id; `what` says of which. Raises Refusal."""
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise bad(f"{what} is {value!r:.60}; send a text of at most {LONGEST_NAME} characters")
    return value
