"""As little as one can write: an ASGI function, msgspec, ONNX Runtime. No record, no metrics, no limits, no versions."""

import os
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    (Path(os.environ["BENCH_MODEL"]) / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
)
OUTPUTS = [session.get_outputs()[-1].name]


class Row(msgspec.Struct):
    features: list[float]


decode = msgspec.json.Decoder(Row).decode
encode = msgspec.json.Encoder().encode


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    raw, more = b"", True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    body = b"{}"
    if scope["path"] == "/predict":
        columns = np.array([decode(raw).features], dtype=np.float32)
        body = encode({"probability": float(session.run(OUTPUTS, {"columns": columns})[0][0, 1])})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
