"""A label that cannot be computed goes the way of every bad event, in whatever process it is computed."""

from __future__ import annotations

import pickle

import pytest

from millstream.errors import RejectEvent
from millstream.project.expression import compile_label


def test_a_delay_that_is_no_number_makes_no_label_here_and_in_a_worker_process() -> None:
    label = compile_label("arr_delay >= 15")
    travelled = pickle.loads(pickle.dumps(label))  # noqa: S301  (our own bytes, one line above)

    for each in (label, travelled):
        assert each({"arr_delay": 20}) is True
        with pytest.raises(RejectEvent, match="invalid_label: 'arr_delay >= 15' cannot be computed"):
            each({"arr_delay": "soon"})
