"""Callers of a service: one request after the other, each on a connection of its own, and what became of them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

NOW = "2013-01-11T12:00:00Z"
"""Where the replay ends: an event of today would move stream time by years, and everything that goes by it."""
EVENT: dict[str, Any] = {
    "flight_id": "2013-01-11-B6-0-JFK",
    "announced_at": "2013-01-11T11:00:00Z",
    "scheduled_at": "2013-01-11T13:00:00Z",
    "origin": "JFK",
    "dest": "LAX",
    "carrier": "B6",
    "tailnum": "N708JB",
    "distance": 2475,
    "scheduled_minute": 480,
    "weekday": 4,
}
QUESTIONS: dict[str, tuple[str, Any]] = {
    "ingest": ("/v1/streams/flights-scheduled/events", EVENT),
    "features": (
        "/get-online-features",
        {
            "feature_service": "delay_v1",
            "full_feature_names": True,
            "entities": {name: [EVENT[name]] for name in ("origin", "dest", "carrier", "tailnum")},
        },
    ),
    "serving": ("/v1/loops/flight-delay/predict", {"event": EVENT}),
}
"""What each is asked, and with what; of the others whether they are ready."""
PAUSE = 0.02
PATIENCE = 10.0


class Load:
    """Calls the service at `address` until the context ends."""

    def __init__(self, address: str, service: str) -> None:
        path, body = QUESTIONS.get(service, ("/readyz", None))
        self._request = urllib.request.Request(
            f"{address}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={} if body is None else {"content-type": "application/json", "ce-knownat": NOW},
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answered = 0
        self.failed: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=2 * PATIENCE)

    def _run(self) -> None:
        while not self._end.wait(PAUSE):
            try:
                with urllib.request.urlopen(self._request, timeout=PATIENCE) as answer:
                    answer.read()
                self.answered += 1
            except urllib.error.HTTPError as refused:
                self.failed.append(f"{refused.code} {refused.read()[:200]!r}")
            except OSError as error:
                self.failed.append(repr(error))
