"""What guests say and send with their questions: remarks and echoes, before and after something changed."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from millstream.contracts.content import EMBEDDING, SAMPLE, TEXT, packed
from millstream.contracts.events import PredictionServed
from millstream.contracts.package import ContentReference, Reference

from .drift_kit import reference

WATCHED = {"text": ["remark"], "embedding": ["echo"]}
ABOUT = ("the gate", "my seat", "the crew", "our bags", "boarding", "the food")
CALM = ("was fine", "was late", "was lovely", "could be better", "as always")
NEWS = ("the refund never came", "nobody answers about my refund", "the voucher was refused")
WIDTH = 32


def remark(rng: np.random.Generator, news: float = 0.0) -> str:
    """`news` is the share of remarks about something that nobody wrote of before."""
    if rng.random() < news:
        return f"{rng.choice(ABOUT)} {rng.choice(CALM)}, {rng.choice(NEWS)}"
    return f"{rng.choice(ABOUT)} {rng.choice(CALM)}, {rng.choice(ABOUT)} {rng.choice(CALM)}"


def echo(rng: np.random.Generator, degrees: float = 0.0) -> list[float]:
    """A vector around nothing that is long in its even directions; turned, it is as long in others, and its mean stays."""
    even, odd = rng.normal(size=WIDTH // 2) * 2.0, rng.normal(size=WIDTH // 2) * 0.3
    angle = np.deg2rad(degrees)
    turned = [np.cos(angle) * even - np.sin(angle) * odd, np.sin(angle) * even + np.cos(angle) * odd]
    return [float(x) for x in np.stack(turned, axis=1).ravel().round(4)]


def content_references(seed: int = 1) -> list[ContentReference]:
    rng = np.random.default_rng(seed)
    return [
        ContentReference(name="remark", type=TEXT, missing=0.0, texts=[remark(rng) for _ in range(SAMPLE)]),
        ContentReference(name="echo", type=EMBEDDING, missing=0.0, vectors=[packed(echo(rng)) for _ in range(SAMPLE)]),
    ]


def with_content() -> Reference:
    """The kit's reference, of a version that was trained among remarks and echoes."""
    return msgspec.structs.replace(reference(), content=content_references())


def saying(said: list[Any], seed: int = 2, *, news: float = 0.0, degrees: float = 0.0, **leave: Any) -> list[Any]:
    """The kit's flights, whose questions have a remark and an echo; `leave` gives some another value, None leaves it out."""
    rng, found = np.random.default_rng(seed), []
    for topic, event, at in said:
        if isinstance(event, PredictionServed):
            content = {"remark": remark(rng, news), "echo": echo(rng, degrees)} | leave
            event = msgspec.structs.replace(event, content={k: v for k, v in content.items() if v is not None})
        found.append((topic, event, at))
    return found
