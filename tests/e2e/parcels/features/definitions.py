"""What is known about a carrier when a parcel leaves: how many it has sent in the last day."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, ValueType
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import schema_of, stream_source

sent = stream_source(Path(__file__).parent.parent / "streams" / "parcels-sent.yaml")
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
aggregations = [
    Aggregation(
        column="*",
        function="count",
        name="count_24h",
        time_window=timedelta(hours=24),
        slide_interval=timedelta(hours=1),
    )
]
carrier_parcels = StreamFeatureView(
    name="carrier_parcels",
    source=sent,
    entities=[carrier],
    aggregations=aggregations,
    schema=schema_of(aggregations),
    timestamp_field=sent.timestamp_field,
    ttl=timedelta(days=2),
)
carriers_v1 = FeatureService(name="carriers_v1", features=[carrier_parcels])
