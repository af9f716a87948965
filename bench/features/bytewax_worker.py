"""The peer's side of `peers.py`, in an environment of its own: four tumbling windows of ten minutes in Bytewax.

One worker, no recovery store (its default): its windows are in memory, and their values come out when they close; ours, Quix's
and Kafka Streams' can be read after each event. Prints the seconds from the first event in a window to the last as JSON.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSource
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

bootstrap, events = sys.argv[1], int(sys.argv[3])
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
seen = {"count": 0, "first": 0.0}


def updated(state, event):
    seen["count"] += 1
    if seen["count"] == 1:
        seen["first"] = time.perf_counter()
    if seen["count"] == 4 * events:
        print(json.dumps({"seconds": time.perf_counter() - seen["first"]}), flush=True)
        os._exit(0)  # what is measured is over; closing takes as long as it likes
    count, total = state
    return count + 1, total + event["delay"]


def merged(one, other):
    return one[0] + other[0], one[1] + other[1]


def decoded(message):
    event = json.loads(message.value)
    event["time"] = datetime.fromisoformat(event["departed_at"])
    return event


flow = Dataflow("departures")
source = op.input("kafka", flow, KafkaSource([bootstrap], ["departures"], batch_size=1_000))
stream = op.map("decode", source, decoded)
for key in ("airport", "terminal", "route", "aircraft"):
    keyed = op.key_on(f"by-{key}", stream, lambda event, key=key: event[key])
    clock = win.EventClock(lambda event: event["time"], wait_for_system_duration=timedelta(hours=1))
    windows = win.TumblingWindower(length=timedelta(minutes=10), align_to=EPOCH)
    folded = win.fold_window(f"fold-{key}", keyed, clock, windows, lambda: (0, 0.0), updated, merged, ordered=False)
    op.output(f"out-{key}", op.map(f"text-{key}", folded.down, str), StdOutSink())
run_main(flow)
