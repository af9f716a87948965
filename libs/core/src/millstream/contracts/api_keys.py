"""What an API key looks like, and what is kept of it.

`ms_<id>_<secret>`: the id finds the key and may be shown; the secret is 256 random bits. So SHA-256 is enough to keep it: there
is no dictionary to try, and a slow hash, which is made for passwords, would cost every request its time.
"""

from __future__ import annotations

import hashlib
import re

PREFIX = "ms_"
"""By which people and secret scanners know one: `ms_[0-9a-f]{12}_[0-9a-f]{64}`."""
ID_BYTES, SECRET_BYTES = 6, 32

_SHAPE = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * ID_BYTES}}})_[0-9a-f]{{{2 * SECRET_BYTES}}}")


def api_key(id: bytes, secret: bytes) -> str:
    """The key made of ID_BYTES and SECRET_BYTES random bytes."""
    if len(id) != ID_BYTES or len(secret) != SECRET_BYTES:
        raise ValueError(f"a key has {ID_BYTES} bytes of id and {SECRET_BYTES} of secret")
    return f"{PREFIX}{id.hex()}_{secret.hex()}"


def id_of(text: str) -> str | None:
    """The id in a key; None where it has not the shape of one."""
    match = _SHAPE.fullmatch(text)
    return None if match is None else match[1]


def digest_of(text: str) -> bytes:
    """What is kept: 32 bytes."""
    return hashlib.sha256(text.encode()).digest()
