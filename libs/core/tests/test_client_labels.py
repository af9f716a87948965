"""Labels of a producer in Newark: by the question's key, or by the id of the answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx

from .test_client import BUSY, Mill


def test_a_label_says_the_same_time_at_each_try() -> None:
    mill = Mill([httpx.Response(503, **BUSY)])

    mill.client().label("flight-delay", {"flight_id": "a"}, True)
    mill.client().label("flight-delay", {"flight_id": "a"}, True, at=datetime(2013, 1, 1, tzinfo=UTC))
    mill.client().label_prediction("flight-delay", "3b70", True, at=datetime(2013, 1, 1, tzinfo=UTC))

    first, again, dated, answered = (json.loads(request.content) for request in mill.asked)
    assert first == again
    assert dated == {"key": {"flight_id": "a"}, "value": True, "at": "2013-01-01T00:00:00Z"}
    assert answered == {"prediction_id": "3b70", "value": True, "at": "2013-01-01T00:00:00Z"}
    assert {str(request.url) for request in mill.asked} == {"http://mill/v1/loops/flight-delay/labels"}
