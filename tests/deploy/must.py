"""What becomes of a test whose programs are not on this machine: skipped, or where MILLSTREAM_MUST is set, failed."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

MUST = "MILLSTREAM_MUST"


def lacks(why: str) -> NoReturn:
    """Ends the test. Not for what another target of make runs: that is skipped whatever MILLSTREAM_MUST says."""
    if os.environ.get(MUST):
        pytest.fail(f"{MUST} is set, and {why}", pytrace=False)
    pytest.skip(why)
