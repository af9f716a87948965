"""The point-in-time join of `last_k`: the latest known value of each range, then the latest before that one, k times."""

from __future__ import annotations

import numpy as np

from millstream_tiles.join_forest import Floats, Ints, Span, walk
from millstream_tiles.join_measures import Last, Ranks


def latest_values(column: Floats, places: Ints, known: Ints, span: Span, k: int) -> Floats:
    """The k latest values of each range, the latest first, NaN behind the last: (questions, k).

    `column`, `places` (key and event time as one number, ascending) and `known` (known-at) are of the events, in order.
    """
    # Among equal event times the larger value is the later, so they stand in that order; ranges never cut them apart.
    order = np.lexsort((column, places))
    column, known = column[order], known[order]
    answers = np.full((len(span.t), k), np.nan)
    open_, end = np.flatnonzero(span.start < span.end), span.end.copy()
    for i in range(k):
        if not len(open_):
            break
        one = Span(span.start[open_], end[open_], span.t[open_])
        last = Last(Ranks(column, np.arange(len(column))), len(open_))
        one.measures.append(last)
        walk(known.copy(), [one])
        found = last.answers >= 0
        open_, at = open_[found], last.answers[found]
        answers[open_, i] = column[at]
        end[open_] = at
        more = span.start[open_] < end[open_]
        open_ = open_[more]
    return answers
