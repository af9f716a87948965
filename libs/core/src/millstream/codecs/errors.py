"""What keeps a schema from being used."""

from __future__ import annotations


class UnfitSchema(ValueError):
    """A schema that no event of ours can have: the message says what is wrong with it, `remedy` what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy
