"""The peer's side of `quix.py`, in an environment of its own: four tumbling windows of ten minutes in Quix Streams.

Each is keyed as one of our views is, so it goes through a topic of its own (`group_by`); count and mean are in RocksDB, with
Quix's defaults. Prints the seconds from the first window to the last as JSON.
"""

import json
import os
import sys
import time

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Mean

bootstrap, folder, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
app = Application(
    broker_address=bootstrap, consumer_group="quix", auto_offset_reset="earliest", state_dir=folder, loglevel="ERROR"
)
departures = app.topic("departures", key_deserializer="str", value_deserializer="json")
seen = {"count": 0, "first": 0.0}


def updated(window: object) -> None:
    seen["count"] += 1
    if seen["count"] == 1:
        seen["first"] = time.perf_counter()
    if seen["count"] == 4 * events:
        print(json.dumps({"seconds": time.perf_counter() - seen["first"]}), flush=True)
        os._exit(0)  # what is measured is over; closing takes as long as it likes


source = app.dataframe(departures)
for key in ("airport", "terminal", "route", "aircraft"):
    grouped = source.group_by(key).tumbling_window(600_000, grace_ms=3_600_000)
    grouped.agg(count=Count(), mean=Mean("delay")).current().update(updated)
app.run()
