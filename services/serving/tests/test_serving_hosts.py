"""Whom a package may make this process talk to: the hosts that are named, and nobody beside them."""

from __future__ import annotations

import pytest

from millstream.runtime.remote import RemoteRefused, allowed


@pytest.mark.parametrize(
    ("url", "hosts", "fine"),
    [
        ("http://triton:8000/v2/models/x", "triton", True),
        ("https://triton:8000/v2/models/x/versions/2", "other, triton:8000", True),
        ("http://triton:8000/v2/models/x", "triton:9000", False),
        ("http://triton:8000/v2/models/x", "", False),
        ("http://triton@evil/v2/models/x", "triton", False),
        ("http://evil/v2/models/x?triton", "triton", False),
        ("file:///v2/models/x", "", False),
        ("http://triton/admin", "triton", False),
        ("http://triton/v2/models/../../admin", "triton", False),
        ("http://triton:x/v2/models/x", "triton", False),
    ],
)
def test_only_hosts_that_are_named_are_asked(url: str, hosts: str, fine: bool) -> None:
    if fine:
        allowed(url, hosts)
    else:
        with pytest.raises(RemoteRefused):
            allowed(url, hosts)
