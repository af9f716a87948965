"""What every event of ours is."""

from __future__ import annotations

from typing import ClassVar

import msgspec

Scalar = str | int | float | bool | None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of our events. `type_name` is the CloudEvents type; a breaking change needs a new one."""

    type_name: ClassVar[str]

    def encode(self) -> bytes:
        return msgspec.json.encode(self)
