"""Cuts a request body into the bytes of its events, within bounds that keep memory near the size of the body."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from millstream.errors import Refusal

MOST_EVENTS = 10_000
"""Of one batch. Checking that many takes under a second of one core; more belongs into several requests."""
MOST_VALUES = 1_000_000
"""JSON values of one body, counted by their commas and brackets. A Python object costs 50 bytes or more, so 16 MiB of
`[[],[],…` would become a gigabyte; a batch of 10,000 events with 30 fields each has 320,000."""

OVERLONG = b""
"""Stands for a line that was too long to be kept; no real line is empty."""

_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


def bounded(body: bytes) -> None:
    """Refuse a body of too many values before any of them is decoded. Raises Refusal(`too_many_values`)."""
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > MOST_VALUES:
        raise Refusal("too_many_values", f"the body has about {values} JSON values; send at most {MOST_VALUES} at once")


def cut_lines(body: bytes) -> Sequence[bytes]:
    """The events of an NDJSON body: one JSON value a line, blank lines skipped.

    Raises Refusal(`too_many_events`, `too_many_values`, `empty_batch`).
    """
    bounded(body)
    # Counted before they are cut: 16 MiB of line ends would be 16 million objects.
    _not_too_many(body.count(b"\n"))
    return _not_empty([line for raw in body.split(b"\n") if (line := raw.strip(b" \t\r"))])


class Lines:
    """Cuts lines out of a body that comes in pieces, holding at most one line of `longest` bytes back."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""
        self._skipping = False

    @property
    def held(self) -> int:
        """Bytes of the line that is not complete."""
        return len(self._rest)

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that `piece` ends, blank ones skipped; OVERLONG in place of one that is too long."""
        whole = self._rest + piece if self._rest else piece
        lines = whole.split(b"\n")
        self._rest = lines.pop()
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
            found = [OVERLONG]
        else:
            found = []
        found += [line for raw in lines if (line := raw.strip(b" \t\r"))]
        if self._skipping:
            self._rest = b""
        elif len(self._rest) > self._longest:
            self._rest, self._skipping = b"", True
        return found

    def end(self) -> list[bytes]:
        """The last line, which needs no line end."""
        rest, self._rest = self._rest.strip(b" \t\r"), b""
        return [OVERLONG] if self._skipping else [rest] if rest else []


def cut_array(body: bytes) -> Sequence[bytes]:
    """The events of a JSON array.

    Raises Refusal(`bad_json`, `too_deep`, `too_many_events`, `too_many_values`, `empty_batch`).
    """
    bounded(body)
    try:
        raws = _ARRAY.decode(body)
    except RecursionError as error:
        raise Refusal("too_deep", "the array is nested too deeply to be read") from error
    except msgspec.ValidationError as error:
        raise Refusal(
            "bad_json", "a batch is a JSON array of events; send one event to /events, or lines as application/x-ndjson"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("bad_json", f"the body is no JSON array: {error}") from error
    return _not_empty([bytes(raw) for raw in raws])


def _not_too_many(count: int) -> None:
    if count > MOST_EVENTS:
        raise Refusal("too_many_events", f"{count} events in one batch; send at most {MOST_EVENTS}")


def _not_empty(events: list[bytes]) -> list[bytes]:
    if not events:
        raise Refusal("empty_batch", "the batch has no event; send one at least")
    _not_too_many(len(events))
    return events
