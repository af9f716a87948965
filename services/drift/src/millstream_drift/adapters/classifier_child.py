"""Tells a window's texts and embeddings from training's: run as a process of its own, as a report is.

python -m millstream_drift.adapters.classifier_child SIDES SHIFTS

A logistic regression, on hashed character and word n-grams of a text, on the coordinates of an embedding and how it lies among
training's (a turn need not move a mean). Rows are scored by a model that did not learn from them (five
folds). Seeds are fixed: the same sides give the same numbers.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from millstream.contracts.content import TEXT
from millstream_drift.domain.auc import auc_interval
from millstream_drift.domain.content import ContentShift, Side

FOLDS = 5
HASHES = 2**16
"""Columns of hashed n-grams: 1,000 texts have some ten thousand different ones, so few meet in one column."""
COMPONENTS = 10
"""Principal components whose products are looked at: 55 columns more."""
TINY = 1e-12
"""Of a vector that is wholly inside of them."""
MOST_WORDS, RISEN = 3, 0.05
"""Words that are named, and by how much of the texts each has to be more frequent."""


def compare(side: Side) -> ContentShift:
    """How well the two can be told apart."""
    classes = np.repeat([1, 0], [len(side.window), len(side.reference)])
    scores = _text_scores(side, classes) if side.type == TEXT else _vector_scores(side, classes)
    auc, low, high = auc_interval(scores[classes == 1], scores[classes == 0])
    detail = _words(side) if side.type == TEXT and low > 0.5 else ""
    return ContentShift(name=side.name, auc=auc, low=low, high=high, detail=detail)


def _text_scores(side: Side, classes: NDArray[np.int_]) -> NDArray[np.float64]:
    def hashed(kind: str, span: tuple[int, int]) -> Any:
        return HashingVectorizer(analyzer=kind, ngram_range=span, n_features=HASHES, alternate_sign=False)

    rows = make_union(hashed("char_wb", (3, 4)), hashed("word", (1, 2))).transform(
        _texts((*side.window, *side.reference))
    )
    return _out_of_fold(rows, classes, LogisticRegression(C=10.0, solver="liblinear", random_state=0))


def _vector_scores(side: Side, classes: NDArray[np.int_]) -> NDArray[np.float64]:
    vectors = np.stack([np.frombuffer(cell, "<f4").astype(np.float64) for cell in (*side.window, *side.reference)])
    # The mean of a column has an error of 0.06 at 500 rows: with a thousand columns a weak penalty would learn that by heart.
    model = LogisticRegression(C=0.01, max_iter=300)
    rows = make_union(StandardScaler(), make_pipeline(Shape(), StandardScaler()))
    return _out_of_fold(vectors, classes, make_pipeline(rows, model))


class Shape(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """How a vector lies among training's, beside its coordinates: a scikit-learn transformer.

    Products of training's first principal components, and how much of the vector is outside of them. Those of both sides
    together would not do: a turn leaves them between the two, where both look alike.
    """

    def fit(self, vectors: NDArray[np.float64], classes: NDArray[np.int_]) -> Shape:
        training = vectors[classes == 0]
        self._space = PCA(min(COMPONENTS, training.shape[1]), whiten=True, random_state=0).fit(training)
        return self

    def transform(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = self._space.transform(vectors)
        first, second = np.triu_indices(parts.shape[1])
        outside = ((vectors - self._space.inverse_transform(parts)) ** 2).sum(axis=1, keepdims=True)
        found: NDArray[np.float64] = np.hstack([parts[:, first] * parts[:, second], np.log(outside + TINY)])
        return found


def _texts(cells: Sequence[bytes]) -> list[str]:
    return [cell.decode("utf-8", "replace") for cell in cells]


def _out_of_fold(rows: Any, classes: NDArray[np.int_], model: Any) -> NDArray[np.float64]:
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found: NDArray[np.float64] = cross_val_predict(model, rows, classes, cv=folds, method="decision_function")
    return found


def _words(side: Side) -> str:
    """Words that more of the window's texts have than training's."""
    now, then = _shares(side.window), _shares(side.reference)
    risen = sorted((then.get(word, 0.0) - share, word) for word, share in now.items())[:MOST_WORDS]
    named = [
        f"{word[:40]!r} in {now[word]:.0%} (was {then.get(word, 0.0):.0%})" for less, word in risen if -less >= RISEN
    ]
    return f"more of {', '.join(named)}" if named else ""


def _shares(cells: Sequence[bytes]) -> dict[str, float]:
    counts = Counter(word for text in _texts(cells) for word in set(re.findall(r"\w\w+", text.lower())))
    return {word: count / len(cells) for word, count in counts.items()}


def main() -> int:
    handed, found = Path(sys.argv[1]), Path(sys.argv[2])
    sides = msgspec.msgpack.decode(handed.read_bytes(), type=list[Side])
    found.write_bytes(msgspec.msgpack.encode([compare(side) for side in sides]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
