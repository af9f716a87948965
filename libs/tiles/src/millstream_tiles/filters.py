"""The filter of a view: which events its `where` lets into the windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream_expression import Expression, NotComputable, compile_expression

REMEMBERED = 100_000
"""Different rows whose answer is kept: filters mostly read a flag or a code, and are then computed a handful of times."""


@lru_cache(maxsize=1024)
def filter_of(where: str) -> Expression:
    """`where` compiled. Raises BadExpression."""
    return compile_expression(where)


def lets_through(where: str, event: dict[str, Any]) -> bool:
    """Whether the filter is true of `event`; false, null and what cannot be computed are not."""
    try:
        return filter_of(where)(event) is True
    except NotComputable:
        return False


def filtered(where: str, rows: Iterable[Sequence[Any]], n: int) -> NDArray[np.bool_]:
    """`lets_through` for `n` rows, each the values of the filter's fields in their order."""
    fields = filter_of(where).fields
    known: dict[Any, bool] = {}
    passes = np.zeros(n, dtype=bool)
    for i, row in enumerate(rows):
        values = tuple(row)
        try:
            passes[i] = known[values]
        except KeyError:
            if len(known) >= REMEMBERED:
                known.clear()
            passes[i] = known[values] = lets_through(where, dict(zip(fields, values, strict=True)))
        except TypeError:  # a list or an object has no hash
            passes[i] = lets_through(where, dict(zip(fields, values, strict=True)))
    return passes
