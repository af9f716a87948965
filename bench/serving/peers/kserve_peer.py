"""A model of KServe's own server, asked over its v2 protocol."""

import argparse
import os
from pathlib import Path

import kserve
import lightgbm
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Delays(Model):
    def __init__(self):
        super().__init__("delays")
        self.booster = lightgbm.Booster(model_file=str(Path(os.environ["BENCH_MODEL"]) / "booster.txt"))
        self.ready = True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        found = self.booster.predict(payload.inputs[0].as_numpy(), num_threads=1)
        output = InferOutput(name="probability", shape=list(found.shape), datatype="FP64", data=found.tolist())
        return InferResponse(response_id="1", model_name="delays", infer_outputs=[output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.parse_known_args()
    ModelServer(workers=1, access_log_format="", enable_latency_logging=False).start([Delays()])
