"""The JSON of the Open Inference Protocol, and its extension for tensors as bytes behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from millstream_serving.domain.inference import (
    LONGEST_NAME,
    InferRequest,
    InferResponse,
    ModelMetadata,
    TableRequest,
    TableResponse,
    TensorSpec,
    name_in,
)
from millstream_serving.domain.tensors import FP32, LARGEST_DIMENSION, Tensor, bad, from_bytes, from_values, to_bytes

MOST_TENSORS = 2_000
"""Inputs or outputs of one request; a model with more columns takes them as one tensor."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which outputs are wanted as bytes."""

    by_name: Mapping[str, bool]
    otherwise: bool

    def holds(self, name: str) -> bool:
        return self.by_name.get(name, self.otherwise)


PLAIN = Wanted(by_name={}, otherwise=False)
"""All outputs in JSON, as who says nothing of it wants them."""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: tuple[int, int]
    datatype: Literal["FP32", "FP64"]
    data: list[float]


class _Simple(msgspec.Struct, forbid_unknown_fields=True):
    inputs: tuple[_Table]
    id: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)] = ""


_simple = msgspec.json.Decoder(_Simple).decode


def table_request_of(raw: bytes) -> TableRequest | None:
    """What `request_of` makes of the commonest body. None for any other body, and for one with a fault, which `request_of`
    names."""
    try:
        body = _simple(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    (table,) = body.inputs
    (rows, width), data = table.shape, table.data
    if not 0 < rows <= LARGEST_DIMENSION or not 0 < width <= LARGEST_DIMENSION or len(data) != rows * width:
        return None
    if len(table.name) > LONGEST_NAME:
        return None
    return TableRequest(name=table.name, datatype=table.datatype, rows=rows, width=width, data=data, id=body.id)


def request_of(body: Any, binary: bytes | memoryview) -> tuple[InferRequest, Wanted]:
    """What a body asks; `binary` is what follows its JSON. Raises Refusal."""
    if not isinstance(body, dict):
        raise bad('the body is no object; send {"inputs": [{"name": …, "shape": [1], "datatype": …, "data": […]}]}')
    inputs, tensors, at = _objects(body, "inputs"), [], 0
    for one in inputs:
        size = _parameters(one, "an input").get("binary_data_size")
        raw = None
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(binary) - at:
                left = f"{len(binary) - at} bytes are left behind the JSON"
                raise bad(
                    f"binary_data_size is {size!r:.40}, and {left}; see the header inference-header-content-length"
                )
            raw, at = binary[at : at + size], at + size
        tensors.append(_tensor(one, raw))
    if at != len(binary):
        raise bad(f"{len(binary) - at} bytes behind the JSON belong to no input; give each its binary_data_size")
    parameters = _parameters(body, "the request")
    outputs = _objects(body, "outputs") if body.get("outputs") is not None else []
    names = [name_in("the name of an output", one.get("name")) for one in outputs]
    asked = InferRequest(
        id="" if body.get("id") is None else name_in("id", body["id"]),
        tensors=tensors,
        parameters=parameters,
        outputs=names,
    )
    by_name = {name: _binary(one) for name, one in zip(names, outputs, strict=True)}
    wanted = Wanted(
        by_name={name: said for name, said in by_name.items() if said is not None},
        otherwise=_flag(parameters, "binary_data_output") or False,
    )
    return asked, wanted


def answer_of(response: InferResponse, wanted: Wanted) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON of an answer, and the bytes that follow it."""
    outputs, binary = [], []
    for tensor in response.tensors:
        said: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if wanted.holds(tensor.name):
            binary.append(to_bytes(tensor))
            said["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            said["data"] = tensor.values.tolist()
        outputs.append(said)
    found: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        found["id"] = response.id
    return found | {"parameters": response.parameters, "outputs": outputs}, binary


def table_answer_of(response: TableResponse) -> dict[str, Any]:
    """The JSON of the answer to a `TableRequest`."""
    output = {"name": response.output, "datatype": FP32, "shape": response.shape, "data": response.data}
    found: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        found["id"] = response.id
    found["parameters"], found["outputs"] = response.parameters, (output,)
    return found


def metadata_of(model: ModelMetadata) -> dict[str, Any]:
    return {
        "name": model.name,
        "versions": model.versions,
        "platform": model.platform,
        "inputs": [_spec(one) for one in model.inputs],
        "outputs": [_spec(one) for one in model.outputs],
    }


def _spec(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def _tensor(said: Mapping[str, Any], raw: bytes | memoryview | None) -> Tensor:
    name, datatype, shape = name_in("the name of an input", said.get("name")), said.get("datatype"), said.get("shape")
    if raw is not None:
        if "data" in said:
            raise bad(f"input {name!r}: data and binary_data_size; send one of them")
        return from_bytes(name, datatype, shape, raw)  # type: ignore[arg-type]  # both are checked there
    if "shared_memory_region" in _parameters(said, name):
        raise bad(f"input {name!r}: shared memory is not taken; send data, or bytes with binary_data_size")
    return from_values(name, datatype, shape, said.get("data"))  # type: ignore[arg-type]


def _objects(body: Mapping[str, Any], field: str) -> Sequence[Mapping[str, Any]]:
    found = body.get(field)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise bad(
            f"{field} is {'missing' if found is None else repr(found)[:60]}; send a list of objects, each with a name"
        )
    if len(found) > MOST_TENSORS:
        raise bad(f"{len(found)} {field}; send at most {MOST_TENSORS}")
    return found


def _parameters(said: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    """Those that nobody here knows are passed over, as the protocol has it."""
    found = said.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise bad(f"parameters of {whose} are {found!r:.60}; send an object")
    return found


def _binary(output: Mapping[str, Any]) -> bool | None:
    said = _parameters(output, "an output")
    if said.get("classification"):
        raise bad("classification is not offered; leave it out, probabilities come in the order of the classes")
    if "shared_memory_region" in said:
        raise bad("shared memory is not offered; leave it out")
    return _flag(said, "binary_data")


def _flag(said: Mapping[str, Any], name: str) -> bool | None:
    found = said.get(name)
    if found is not None and not isinstance(found, bool):
        raise bad(f"{name} is {found!r:.40}; send true or false")
    return found
