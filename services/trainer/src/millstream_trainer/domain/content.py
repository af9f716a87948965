"""Texts and embeddings of training questions as a reference keeps them: a sample, the same whoever draws it."""

from __future__ import annotations

from collections.abc import Mapping

from millstream.contracts.content import EMBEDDING, SAMPLE, TEXT, Content, packed, rank
from millstream.contracts.package import ContentReference
from millstream_trainer.domain.table import Table


def content_reference(
    name: str, found: Mapping[str, Content | None], train: Table, *, embedding: bool
) -> ContentReference:
    """`found` by question, as far as they are in `train`."""
    known = [(id, found[id]) for id in train.questions.tolist() if id in found]
    there = sorted((rank(id), value) for id, value in known if value is not None)[:SAMPLE]
    present = sum(value is not None for _, value in known)
    return ContentReference(
        name=name,
        type=EMBEDDING if embedding else TEXT,
        missing=1 - present / len(known) if known else 0.0,
        texts=[value for _, value in there if isinstance(value, str)],
        vectors=[packed(value) for _, value in there if not isinstance(value, str)],
    )
