"""What is asked: a loop with one entity of 20 windowed features and one number of the question, and one that is given all."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

LOOP, GIVEN = "delays", "given"
"""The loop that looks 20 features up, and the loop whose question brings all that its model reads."""
QUESTIONS, GIVEN_QUESTIONS, EVENTS, LABELS = "asks", "asks-given", "departures", "landings"
SERVICE, VIEW, ENTITY, INPUT = "everything", "by_airport", "airport", "distance"
AIRPORTS = 1_000
FUNCTIONS = ("mean", "count", "min", "max", "std")
HOURS = (1, 2, 3, 4)
FEATURES = [f"{VIEW}__{function}_{hours}h" for hours in HOURS for function in FUNCTIONS]
COLUMNS = [INPUT, *FEATURES]
"""Of the model, in order; the loop that is given all has them as inputs."""
PARTITIONS = 1

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_TIME = {"type": "string", "format": "date-time"}
_STORE = """\
project: bench
provider: local
entity_key_serialization_version: 3
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""
_DEFINITIONS = f"""\
from datetime import timedelta

from feast import Entity, FeatureService
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import stream_source

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
airport = Entity(name="{ENTITY}")
view = StreamFeatureView(
    name="{VIEW}",
    entities=[airport],
    source=stream_source("../streams/{EVENTS}.yaml"),
    timestamp_field="departed_at",
    aggregations=[
        Aggregation(
            column="*" if function == "count" else "delay",
            function=function,
            name=f"{{function}}_{{hours}}h",
            time_window=hours * HOUR,
            slide_interval=10 * MINUTE,
        )
        for hours in {HOURS}
        for function in {FUNCTIONS}
    ],
)
everything = FeatureService(name="{SERVICE}", features=[view])
"""


def project(folder: Path) -> Path:
    """Write the project and return its folder."""
    for part in ("streams", "loops", "features"):
        (folder / part).mkdir(parents=True)
    asked = {"id": _TEXT, "at": _TIME, ENTITY: _TEXT, INPUT: _NUMBER}
    streams = {
        EVENTS: (ENTITY, None, "departed_at", {"departed_at": _TIME, ENTITY: _TEXT, "delay": _NUMBER}),
        QUESTIONS: ("id", "id", "at", asked),
        GIVEN_QUESTIONS: (
            "id",
            "id",
            "at",
            {"id": _TEXT, "at": _TIME, ENTITY: _TEXT} | dict.fromkeys(COLUMNS, _NUMBER),
        ),
        LABELS: ("id", "id", "at", {"id": _TEXT, "at": _TIME, "delay": _NUMBER}),
    }
    for name, (key, id, at, fields) in streams.items():
        schema = {"type": "object", "required": list(fields), "properties": fields}
        said = {
            "stream": name,
            "description": "Of the bench.",
            "key": key,
            "id": id,
            "time": at,
            "partitions": PARTITIONS,
            "schema": schema,
        }
        if id is None:
            del said["id"]
        (folder / "streams" / f"{name}.yaml").write_text(json.dumps(said))  # JSON is YAML
    label = {"from": LABELS, "by": "id", "value": "delay >= 15", "within": "24h"}
    for loop, on, inputs in ((LOOP, QUESTIONS, [INPUT]), (GIVEN, GIVEN_QUESTIONS, COLUMNS)):
        predict = {"on": on, "features": SERVICE, "inputs": inputs}
        (folder / "loops" / f"{loop}.yaml").write_text(json.dumps({"loop": loop, "predict": predict, "label": label}))
    (folder / "features" / "feature_store.yaml").write_text(_STORE)
    (folder / "features" / "definitions.py").write_text(_DEFINITIONS)
    return folder


def question(number: int | str = "@" * 12) -> dict[str, object]:
    """Of the loop that looks its features up; by default a template for the load."""
    airport = number * 7919 % AIRPORTS if isinstance(number, int) else 7
    id = f"{number:012d}" if isinstance(number, int) else number
    return {"id": id, "at": _now(), ENTITY: f"A{airport}", INPUT: 1400.0}


def given(number: int) -> dict[str, object]:
    """Of the loop that is given all."""
    return {"id": f"{number:012d}", "at": _now(), ENTITY: "A7"} | dict(zip(COLUMNS, values(number % 100), strict=True))


def predict_body() -> bytes:
    return _json({"event": question()})


def infer_body() -> bytes:
    """One row, all columns in one tensor."""
    tensor = {"name": "features", "shape": [1, len(COLUMNS)], "datatype": "FP32", "data": values(0)}
    return _json({"inputs": [tensor]})


def values(seed: int) -> list[float]:
    chance = random.Random(seed)
    return [round(chance.gauss(10, 30), 2) for _ in COLUMNS]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
