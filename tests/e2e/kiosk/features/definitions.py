"""What is known about a till: how many went by lately."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, ValueType
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import schema_of, stream_source

visits = stream_source(Path(__file__).parent.parent / "streams" / "kiosk-visits.yaml")
till = Entity(name="till", join_keys=["till"], value_type=ValueType.STRING)
aggregations = [
    Aggregation(
        column="visitors",
        function="mean",
        name="mean_visitors_3h",
        time_window=timedelta(hours=3),
        slide_interval=timedelta(hours=1),
    )
]
till_visits = StreamFeatureView(
    name="till_visits",
    source=visits,
    entities=[till],
    aggregations=aggregations,
    schema=schema_of(aggregations),
    timestamp_field=visits.timestamp_field,
    ttl=timedelta(days=2),
)
tills_v1 = FeatureService(name="tills_v1", features=[till_visits])
