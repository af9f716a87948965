"""What is known about a flight an hour before it leaves: how late others like it have been, lately."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, ValueType
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import schema_of, stream_source

STREAMS = Path(__file__).parent.parent / "streams"

departed = stream_source(STREAMS / "flights-departed.yaml")
landed = stream_source(STREAMS / "flights-landed.yaml")

origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
dest = Entity(name="dest", join_keys=["dest"], value_type=ValueType.STRING)
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
tailnum = Entity(name="tailnum", join_keys=["tailnum"], value_type=ValueType.STRING)

TEN_MINUTES = timedelta(minutes=10)
HALF_HOUR = timedelta(minutes=30)
HOUR = timedelta(hours=1)


def mean_delay(column: str, hours: int, slide: timedelta) -> Aggregation:
    return Aggregation(
        column=column,
        function="mean",
        time_window=timedelta(hours=hours),
        slide_interval=slide,
        name=f"mean_delay_{hours}h",
    )


def flights_in(column: str, hours: int, slide: timedelta) -> Aggregation:
    return Aggregation(
        column=column,
        function="count",
        time_window=timedelta(hours=hours),
        slide_interval=slide,
        name=f"flights_{hours}h",
    )


def last_delay(column: str, slide: timedelta) -> Aggregation:
    return Aggregation(
        column=column, function="last", time_window=timedelta(hours=12), slide_interval=slide, name="last_delay"
    )


def view(name, source, entities, aggregations):
    return StreamFeatureView(
        name=name,
        source=source,
        entities=entities,
        aggregations=aggregations,
        schema=schema_of(aggregations),
        timestamp_field=source.timestamp_field,
        ttl=timedelta(days=2),
    )


origin_departures = view(
    "origin_departures",
    departed,
    [origin],
    [
        mean_delay("dep_delay", 1, TEN_MINUTES),
        mean_delay("dep_delay", 3, TEN_MINUTES),
        flights_in("dep_delay", 1, TEN_MINUTES),
    ],
)
carrier_departures = view(
    "carrier_departures",
    departed,
    [carrier],
    [mean_delay("dep_delay", hours, HALF_HOUR) for hours in (1, 3, 24)],
)
origin_carrier_departures = view(
    "origin_carrier_departures",
    departed,
    [origin, carrier],
    [mean_delay("dep_delay", hours, TEN_MINUTES) for hours in (1, 3)],
)
dest_departures = view(
    "dest_departures", departed, [dest], [mean_delay("dep_delay", hours, HALF_HOUR) for hours in (6, 24)]
)
aircraft_departures = view(
    "aircraft_departures", departed, [tailnum], [mean_delay("dep_delay", 12, HOUR), last_delay("dep_delay", HOUR)]
)
dest_landings = view("dest_landings", landed, [dest], [mean_delay("arr_delay", hours, HALF_HOUR) for hours in (3, 24)])
aircraft_landings = view(
    "aircraft_landings", landed, [tailnum], [mean_delay("arr_delay", 24, HOUR), last_delay("arr_delay", HOUR)]
)
origin_landings = view(
    "origin_landings",
    landed,
    [origin],
    [mean_delay("arr_delay", 1, TEN_MINUTES), mean_delay("arr_delay", 3, TEN_MINUTES)],
)

delay_v1 = FeatureService(
    name="delay_v1",
    features=[
        origin_departures,
        carrier_departures,
        origin_carrier_departures,
        dest_departures,
        aircraft_departures,
        dest_landings,
        aircraft_landings,
        origin_landings,
    ],
)
