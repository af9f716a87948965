"""What a backtest can fail with: the message is for the person who typed it."""

from __future__ import annotations

from millstream.errors import MillstreamError


class BacktestFailed(MillstreamError):
    """The backtest cannot go on; the message says why and what to do."""
