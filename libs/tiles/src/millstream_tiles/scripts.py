"""A Lua script and the name that Valkey knows it by."""

from __future__ import annotations

from hashlib import sha1


class Script:
    """`text` to load once, `sha` to call it afterwards."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
