"""What the client says of its caller, and what it does when the mill says: too much."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from millstream.client import Throttled

from .test_client import UA1545, Mill


def test_a_mill_that_wants_a_longer_rest_than_there_is_patience_for_is_an_error_of_its_kind() -> None:
    used_up = {"error": "quota", "message": "key:a may send 1 events/s", "outcome": "not_accepted"}
    mill = Mill([httpx.Response(429, headers={"retry-after": "90"}, json=used_up)])

    with pytest.raises(Throttled, match="nothing was taken, after one try: key:a may send 1 events/s") as refused:
        mill.client().send("flights-departed", UA1545)

    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("quota", 429, 90.0)
    assert len(mill.asked) == 1


def test_a_key_is_given_or_lies_in_the_environment_and_a_token_is_asked_for_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MILLSTREAM_KEY", "from-the-environment")
    mill, tokens = Mill(), iter(("first", "second"))
    mill.client().send("flights-departed", UA1545)
    mill.client(key="given").send("flights-departed", UA1545)
    renewing = mill.client(token=lambda: next(tokens))
    renewing.send("flights-departed", UA1545)
    renewing.send("flights-departed", UA1545)

    said = [request.headers["authorization"] for request in mill.asked]
    assert said == ["Bearer from-the-environment", "Bearer given", "Bearer first", "Bearer second"]
    with pytest.raises(ValueError, match="not both"):
        mill.client(key="a", token="b")


@pytest.mark.parametrize("way", ["client", "asynchronous"])
def test_a_token_that_expires_between_two_tries_is_asked_for_anew(way: str) -> None:
    busy = httpx.Response(429, headers={"retry-after": "0"})
    mill, tokens = Mill([busy, httpx.ConnectError("refused")]), iter(("first", "second", "third"))
    if way == "client":
        mill.client(token=lambda: next(tokens)).send("flights-departed", UA1545)
    else:
        asyncio.run(mill.asynchronous(token=lambda: next(tokens)).send("flights-departed", UA1545))

    assert [request.headers["authorization"] for request in mill.asked] == [
        "Bearer first",
        "Bearer second",
        "Bearer third",
    ]
    assert len({request.headers["idempotency-key"] for request in mill.asked}) == 1, "the same event all the same"


def test_a_token_that_no_header_can_say_is_an_error_and_is_not_shown() -> None:
    mill = Mill()
    with pytest.raises(ValueError, match="blank or no plain character") as refused:
        mill.client(token=lambda: "two\nlines").send("flights-departed", UA1545)
    assert "lines" not in str(refused.value)
    assert mill.asked == []
