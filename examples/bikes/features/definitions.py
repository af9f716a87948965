"""What is known about a station when three hours begin: bikes taken lately, here, at this hour, in the city; and the weather.

Means of bikes are of three hours, as they are reported.
"""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, ValueType
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import schema_of, stream_source

STREAMS = Path(__file__).parent.parent / "streams"

rides = stream_source(STREAMS / "bikes-rides.yaml")
weather = stream_source(STREAMS / "bikes-weather.yaml")

station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)
hour = Entity(name="hour", join_keys=["hour"], value_type=ValueType.INT64)
city = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def mean(column: str, window: timedelta, slide: timedelta = HOUR) -> Aggregation:
    hours = window // HOUR
    span = f"{hours}h" if hours <= 24 else f"{hours // 24}d"
    return Aggregation(
        column=column, function="mean", time_window=window, slide_interval=slide, name=f"mean_{column}_{span}"
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


station_rides = view(
    "station_rides", rides, [station], [mean("rides", 6 * HOUR), mean("rides", 24 * HOUR), mean("rides", 7 * DAY)]
)
# The same hour of the day, over a week and over four: what a station usually rents out now.
station_hour_rides = view(
    "station_hour_rides", rides, [station, hour], [mean("rides", 7 * DAY, DAY), mean("rides", 28 * DAY, DAY)]
)
city_rides = view("city_rides", rides, [city], [mean("rides", 6 * HOUR), mean("rides", 24 * HOUR)])
# Means, not sums: of a broken sensor a sum would say that it did not rain, a mean says that nobody knows.
city_weather = view(
    "city_weather", weather, [city], [mean("temperature", 6 * HOUR), mean("rain", 6 * HOUR), mean("rain", 24 * HOUR)]
)

rides_v1 = FeatureService(name="rides_v1", features=[station_rides, station_hour_rides, city_rides, city_weather])
