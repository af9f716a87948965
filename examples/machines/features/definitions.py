"""What is known about a machine when it is asked about: what its sensors said in the last hours and in the last day."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, ValueType
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import schema_of, stream_source

STREAMS = Path(__file__).parent.parent / "streams"

readings = stream_source(STREAMS / "machines-readings.yaml")

machine = Entity(name="machine", join_keys=["machine"], value_type=ValueType.STRING)

HOUR = timedelta(hours=1)


def over(function: str, column: str, hours: int) -> Aggregation:
    return Aggregation(
        column=column,
        function=function,
        time_window=hours * HOUR,
        slide_interval=HOUR,
        name=f"{function}_{column}_{hours}h",
    )


aggregations = [
    over("mean", "vibration", 6),
    over("mean", "vibration", 24),
    over("p90", "vibration", 24),
    over("std", "vibration", 24),
    over("max", "vibration", 24),
    over("mean", "temperature", 24),
    over("mean", "current", 24),
    over("mean", "humidity", 24),
]
machine_readings = StreamFeatureView(
    name="machine_readings",
    source=readings,
    entities=[machine],
    aggregations=aggregations,
    schema=schema_of(aggregations),
    timestamp_field=readings.timestamp_field,
    ttl=timedelta(days=2),
)

readings_v1 = FeatureService(name="readings_v1", features=[machine_readings])
