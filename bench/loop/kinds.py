"""Planted challengers as graphs, under the names that `planted` has for them.

The trees' own answer is the chance. The champion says it with noise of its own in the logit. `worse_N%` has more noise on top,
so much that it costs as much on flights as the load asks them. Noise is a fast wave over the question's inputs, so that a
question has the same one wherever it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from graphs import RANGES, TURNS, After, Part, late, nan, raises, trees
from models import Floats, expected_loss, logit, sigmoid, solved
from onnx import TensorProto, helper

SEED = 1
OWN = 0.3
"""Of the champion's noise, as in `planted`."""
WAVES = {"own": (0.713, 1.931, 37.1), "more": (1.177, 0.871, 53.9)}
"""By noise: the wave's turns for one more of each input of the question."""
HIGH = float(np.sqrt(2))
"""Of a wave, so that its variance is one."""
RARE = HIGH * float(np.cos(0.02 * np.pi))
"""A wave is above it at 2 % of questions."""
SLICE = ("scheduled_minute", 360.0)
"""One quarter of the day: the slice in which a challenger is worse."""
NEVER_ANSWER = ("raises", "nan", "late")
STRIKES = ("distance", 0.5)
"""At every question, and at no warm-up."""


def noise(name: str, columns: dict[str, Floats]) -> Floats:
    """What the graph computes as `name`."""
    rows = np.stack([columns[column] for column in RANGES], axis=1)
    found: Floats = HIGH * np.sin(rows @ np.array(WAVES[name]))
    return found


def _noise(name: str) -> Part:
    """The same as nodes; 0 where an input is null."""
    made = [
        helper.make_node("Concat", list(RANGES), [f"{name}_inputs"], axis=1),
        helper.make_node("MatMul", [f"{name}_inputs", f"{name}_turns"], [f"{name}_angle"]),
        helper.make_node("Sin", [f"{name}_angle"], [f"{name}_wave"]),
        helper.make_node("Mul", [f"{name}_wave", f"{name}_high"], [f"{name}_raw"]),
        helper.make_node("IsNaN", [f"{name}_raw"], [f"{name}_null"]),
        helper.make_node("Where", [f"{name}_null", f"{name}_none", f"{name}_raw"], [name]),
    ]
    held = [
        helper.make_tensor(f"{name}_turns", TensorProto.FLOAT, [len(RANGES), 1], WAVES[name]),
        helper.make_tensor(f"{name}_high", TensorProto.FLOAT, [], [HIGH]),
        helper.make_tensor(f"{name}_none", TensorProto.FLOAT, [], [0.0]),
    ]
    return made, held


def _said(own: float, more: float = 0.0, shift: float = 0.0, turned: bool = False, in_slice: bool = False) -> Part:
    """`sigmoid(logit(sound) + own · noise + more · noise + shift)`; `turned`: one less that; `in_slice`: outside `sound`."""
    nodes, held = [], []
    for name in WAVES:
        more_nodes, more_held = _noise(name)
        nodes += more_nodes
        held += more_held
    for name, value in (("own_size", own), ("more_size", more), ("shift", shift), ("one", 1.0), ("bar", SLICE[1])):
        held.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    held.append(helper.make_tensor("last", TensorProto.INT64, [1], [1]))
    nodes += [
        helper.make_node("Sub", ["one", "sound"], ["against"]),
        helper.make_node("Div", ["sound", "against"], ["odds"]),
        helper.make_node("Log", ["odds"], ["logit"]),
        helper.make_node("Mul", ["own", "own_size"], ["own_part"]),
        helper.make_node("Mul", ["more", "more_size"], ["more_part"]),
        helper.make_node("Sum", ["own_part", "more_part", "shift"], ["parts"]),
        helper.make_node("Squeeze", ["parts", "last"], ["error"]),
        helper.make_node("Add", ["logit", "error"], ["off"]),
        helper.make_node("Sigmoid", ["off"], ["said"]),
    ]
    if in_slice:
        nodes += [
            helper.make_node("Less", [SLICE[0], "bar"], ["inside"]),
            helper.make_node("Squeeze", ["inside", "last"], ["slice"]),
            helper.make_node("Where", ["slice", "said", "sound"], ["probability"]),
        ]
    else:
        nodes.append(
            helper.make_node(*(("Sub", ["one", "said"]) if turned else ("Identity", ["said"])), ["probability"])
        )
    return nodes, held


def _fails_rarely() -> Part:
    (nodes, held), (more, rest) = _noise("more"), raises("more", RARE)
    return [*nodes, *more], [*held, *rest]


class World:
    """Flights, the chance of each, and models that are off by as much as their names say."""

    def __init__(self, inputs: Sequence[str], flights: int = 20_000) -> None:
        self._inputs = inputs
        self._sound = onnxruntime.InferenceSession(trees(inputs, SEED))
        rng = np.random.default_rng(SEED)
        self._columns = {name: np.floor(rng.uniform(0, top, flights)) for name, top in RANGES.items()}
        self._chance = self.chances(self._columns)

    def chances(self, columns: dict[str, Floats]) -> Floats:
        count = len(next(iter(columns.values())))
        null = np.full(count, np.nan)
        fed = {name: columns.get(name, null).astype(np.float32)[:, None] for name in self._inputs}
        found: Floats = np.asarray(self._sound.run(["probability"], fed)[0], dtype=np.float64)
        return found

    def champion(self) -> bytes:
        return self._graph(partial(_said, OWN))

    def challengers(self) -> dict[str, bytes]:
        made: dict[str, After] = {
            "raises": partial(raises, *STRIKES),
            "nan": partial(nan, *STRIKES),
            "late": partial(late, *STRIKES, TURNS),
            "fails_2%": _fails_rarely,
            "slow_x10": partial(late, *STRIKES, 1),
            "answers_something_else": partial(_said, OWN, turned=True),
            "worse_2%": partial(_said, OWN, self._noise_for(0.02)),
            "shifted_2%": partial(_said, OWN, 0.0, self._shift_for(0.02)),
            "worse_5%": partial(_said, OWN, self._noise_for(0.05)),
            "worse_10%": partial(_said, OWN, self._noise_for(0.10)),
            "worse_50%": partial(_said, OWN, self._noise_for(0.50)),
            "worse_10%_for_one_of_four_better_for_the_rest": partial(_said, OWN, self._noise_for(0.10), in_slice=True),
            "better": partial(_said, 0.0),
            "the_same": partial(_said, OWN),
        }
        return {kind: self._graph(after) for kind, after in made.items()}

    def worse_by(self, columns: dict[str, Floats], champion: Floats, challenger: Floats) -> dict[str, float]:
        """How much the challenger's expected loss is above the champion's, as a share of that: over all, and in the slice."""
        chance, inside = self.chances(columns), columns[SLICE[0]] < SLICE[1]

        def share(rows: Any) -> float:
            own = expected_loss(chance[rows], champion[rows])
            return round(expected_loss(chance[rows], challenger[rows]) / own - 1, 4)

        return {"served_worse_by": share(slice(None)), "served_worse_by_in_slice": share(inside)}

    def _graph(self, after: After) -> bytes:
        return trees(self._inputs, SEED, after)

    def _noise_for(self, worse: float) -> float:
        more = noise("more", self._columns)
        return self._solved(worse, lambda size, own: own + size * more)

    def _shift_for(self, worse: float) -> float:
        return self._solved(worse, lambda size, own: own + size)

    def _solved(self, worse: float, off: Callable[[float, Floats], Floats]) -> float:
        own = logit(self._chance) + OWN * noise("own", self._columns)
        goal = (1 + worse) * expected_loss(self._chance, sigmoid(own))
        return solved(lambda size: expected_loss(self._chance, sigmoid(off(size, own))), goal, 0.0, 5.0)
