"""What serving does: questions in, answers out, by one read and one run of each model; a new model in, whole or not at all."""

from __future__ import annotations

from millstream_serving.handlers.explain import Explainer
from millstream_serving.handlers.inference import Inference
from millstream_serving.handlers.loaded import Loaded
from millstream_serving.handlers.models import ModelKeeper
from millstream_serving.handlers.online import Online
from millstream_serving.handlers.predict import MOST_ROWS, Answer, Predictor, ask
from millstream_serving.handlers.record import Recorder, fits
from millstream_serving.handlers.replica import Replica
from millstream_serving.handlers.residents import MIB, Residents

__all__ = [
    "MIB",
    "MOST_ROWS",
    "Answer",
    "Explainer",
    "Inference",
    "Loaded",
    "ModelKeeper",
    "Online",
    "Predictor",
    "Recorder",
    "Replica",
    "Residents",
    "ask",
    "fits",
]
