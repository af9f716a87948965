"""What a command can fail with: the message is for the person who typed it."""

from __future__ import annotations

from millstream.errors import MillstreamError


class CommandFailed(MillstreamError):
    """The command cannot go on; the message says why and what to do."""


class Stuck(CommandFailed):
    """A service did not get on for too long."""
