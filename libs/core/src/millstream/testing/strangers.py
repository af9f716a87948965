"""Strangers at an HTTP door: what its OpenAPI document allows and forbids, and large bodies that are nothing, in rounds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx

FAT = 64 * 1024
"""Bytes of a large body: so many that a door which keeps one in six of a round's shows it in its memory."""
FAT_ONES = 400
"""Of one round: 25 MiB."""
LATE, DEADLINE = 504, "x-request-timeout-ms"
"""What a door says past the deadline, and the header in which a stranger may ask for one of a millisecond."""
PATIENCE = 20.0
"""Seconds for an answer: longer is a hang, also on a busy machine."""


def visit(url: str, *, seed: int, names: Mapping[str, Sequence[str]], fat: Sequence[str]) -> Counter[int]:
    """One round at `url`, how often each status was answered. `names`: what path parameters are called; `fat`: the paths that
    large bodies are posted to.

    The same `seed` sends the same. Raises AssertionError for an answer of 500 or above, but for LATE to who asked for
    a deadline, and what the client says of none.
    """
    met: Counter[int] = Counter()
    _by_the_document(url, seed, names, met)
    draw = random.Random(seed)
    with httpx.Client(base_url=url, timeout=PATIENCE) as http:
        for number in range(FAT_ONES):
            path = fat[number % len(fat)]
            kind, body = BODIES[number % len(BODIES)](draw)
            _note(met, http.post(path, content=body, headers={"content-type": kind}).status_code, f"{kind} to {path}")
    return met


def _by_the_document(url: str, seed: int, names: Mapping[str, Sequence[str]], met: Counter[int]) -> None:
    # Tools of who develops Millstream: nobody else has them.
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st
    from hypothesis.errors import Unsatisfiable

    sparing = settings(
        max_examples=15,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    def attempt(case: Any, choice: int) -> None:
        for parameter, known in names.items():
            if parameter in case.path_parameters:
                case.path_parameters[parameter] = known[choice % len(known)]
        status = case.call(timeout=PATIENCE).status_code
        hurried = DEADLINE in {name.lower() for name in case.headers}
        _note(met, status, case.operation.label, late=hurried)

    offered: Any = schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()
    for found in offered:
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            work = given(operation.as_strategy(generation_mode=mode), st.integers(0, 9))(attempt)
            with suppress(Unsatisfiable):  # where nothing is asked nothing can be asked wrong
                seeded(seed)(sparing(work))()


def _note(met: Counter[int], status: int, what: str, *, late: bool = False) -> None:
    """`late`: whether it may be."""
    assert status < 500 or (late and status == LATE), f"{status} to {what}"
    met[status] += 1


def _letters(draw: random.Random) -> bytes:
    """Never the same twice: whoever keeps them by their content keeps them all."""
    return draw.randbytes(FAT // 2).hex().encode()


BODIES: Sequence[Callable[[random.Random], tuple[str, bytes]]] = (
    lambda draw: ("application/json", draw.randbytes(FAT)),
    lambda draw: ("application/json", b'{"event": "' + _letters(draw) + b'"}'),
    lambda draw: ("application/json", b'{"' + _letters(draw) + b'": 1}'),
    lambda draw: ("application/json", b'{"event": {"flight_id": "' + _letters(draw)),
    lambda draw: ("application/json", b"[" * (FAT // 2) + draw.randbytes(FAT // 2)),
    lambda draw: (
        "application/json",
        b"[" + b",".join(b'"%x"' % draw.getrandbits(64) for _ in range(FAT // 20)) + b"]",
    ),
    lambda draw: (_letters(draw)[:4000].decode(), b"{}"),
)
"""Large ones that no door has a use for; the last has a large header."""
