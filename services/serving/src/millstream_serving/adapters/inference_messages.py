"""The messages of `inference.GRPCInferenceService`, as the Open Inference Protocol numbers their fields.

In a pool of their own: generated modules share one a process, and a client's would refuse to be imported beside ours.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"

_TENSOR = "name: string 1, datatype: string 2, shape: int64* 3, "
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live: bool 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready: bool 1",
    "ModelReadyRequest": "name: string 1, version: string 2",
    "ModelReadyResponse": "ready: bool 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name: string 1, version: string 2, extensions: string* 3",
    "ModelMetadataRequest": "name: string 1, version: string 2",
    "ModelMetadataResponse.TensorMetadata": "name: string 1, datatype: string 2, shape: int64* 3",
    "ModelMetadataResponse": "name: string 1, versions: string* 2, platform: string 3, "
    "inputs: ModelMetadataResponse.TensorMetadata* 4, outputs: ModelMetadataResponse.TensorMetadata* 5",
    "InferParameter": "bool_param: bool 1, int64_param: int64 2, string_param: string 3, double_param: double 4, "
    "uint64_param: uint64 5",
    "InferTensorContents": "bool_contents: bool* 1, int_contents: int32* 2, int64_contents: int64* 3, "
    "uint_contents: uint32* 4, uint64_contents: uint64* 5, fp32_contents: float* 6, fp64_contents: double* 7, "
    "bytes_contents: bytes* 8",
    "ModelInferRequest.InferInputTensor": _TENSOR + "parameters: map 4, contents: InferTensorContents 5",
    "ModelInferRequest.InferRequestedOutputTensor": "name: string 1, parameters: map 2",
    "ModelInferRequest": "model_name: string 1, model_version: string 2, id: string 3, parameters: map 4, "
    "inputs: ModelInferRequest.InferInputTensor* 5, outputs: ModelInferRequest.InferRequestedOutputTensor* 6, "
    "raw_input_contents: bytes* 7",
    "ModelInferResponse.InferOutputTensor": _TENSOR + "parameters: map 4, contents: InferTensorContents 5",
    "ModelInferResponse": "model_name: string 1, model_version: string 2, id: string 3, parameters: map 4, "
    "outputs: ModelInferResponse.InferOutputTensor* 5, raw_output_contents: bytes* 6",
}
"""Message → `field: type number`; `*` repeats, `map` is of texts to parameters. The order declares what is used."""
_CHOICE = "InferParameter"
"""Its fields exclude each other."""

_F = descriptor_pb2.FieldDescriptorProto


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="millstream/open_inference.proto", package="inference", syntax="proto3"
    )
    messages: dict[str, Any] = {}
    for name, fields in _MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        if outer and outer not in messages:
            messages[outer] = file.message_type.add(name=outer)
        owner = messages[outer].nested_type if outer else file.message_type
        message = messages[name] if name in messages else owner.add(name=inner)
        messages[name] = message
        if name == _CHOICE:
            message.oneof_decl.add(name="parameter_choice")
        for said in fields.split(", ") if fields else ():
            _add(message, name, *said.strip().replace(":", "").split(" "))
    return file


def _add(message: Any, owner: str, name: str, kind: str, number: str) -> None:
    field = message.field.add(name=name, number=int(number), label=_F.LABEL_OPTIONAL)
    if owner == _CHOICE:
        field.oneof_index = 0
    if kind.endswith("*") or kind == "map":
        field.label = _F.LABEL_REPEATED
    kind = kind.rstrip("*")
    if kind == "map":  # protobuf's own encoding of a map: repeated pairs
        pair = message.nested_type.add(name=f"{name.capitalize()}Entry")
        pair.options.map_entry = True
        _add(pair, "", "key", "string", "1")
        _add(pair, "", "value", "InferParameter", "2")
        kind = f"{owner}.{pair.name}"
    if kind.islower():
        field.type = _F.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = _F.TYPE_MESSAGE, f".inference.{kind}"


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


def message(name: str) -> Any:
    """The class of a message of the protocol."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Each takes its `…Request` and answers its `…Response`."""
