"""Whether a file that a stranger sends can be a graph at all, told before anything waits for it."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

GRAPH, OPSETS = 7, 8
"""Fields of `ModelProto` (onnx.proto) that a model cannot do without."""


def is_onnx(raw: bytes) -> bool:
    """Whether the bytes are laid out as an ONNX model. What is in its graph only its run can say."""
    message = Empty()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        return False
    return {GRAPH, OPSETS} <= {field.field_number for field in UnknownFieldSet(message)}
