"""Where a warm start begins: the champion as its library keeps it, if a fit of today may go on from it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from millstream.contracts.package import NATIVE_FILE, BadPackage, Manifest, Native
from millstream.contracts.times import from_datetime, to_datetime, to_rfc3339
from millstream.errors import RetryLater
from millstream.project import Loop
from millstream.project.params import Params, growing, regrown
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.estimators import Start
from millstream_trainer.adapters.learning import Learned, Learner
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.encoding import Encoding
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.table import Table


class NoStart(Exception):
    """From scratch, and why: for a person."""


def start_of(spec: RunSpec, loop: Loop, data: Dataset, learner: Learner, packages: PackageStore) -> Start:
    """The champion, if it learns what the loop learns now. Raises NoStart."""
    if spec.champion is None:
        raise NoStart("there is no champion yet")
    try:
        manifest = packages.manifest(spec.champion)
        if NATIVE_FILE not in manifest.files:
            raise NoStart(
                f"version {manifest.version} was made without warm_start, and its package holds nothing to go on from"
            )
        native = msgspec.json.decode(packages.file(spec.champion, manifest, NATIVE_FILE), type=Native)
        model = packages.file(spec.champion, manifest, native.file)
    except (BadPackage, RetryLater, msgspec.MsgspecError) as error:
        raise NoStart(f"{type(error).__name__}: {error}") from error
    _same(manifest, native, loop, data, learner)
    return Start(
        version=manifest.version,
        model=model,
        encoding=Encoding(
            columns=tuple(native.columns),
            categories={name: tuple(known) for name, known in native.categories.items()},
            one_hot=native.one_hot,
        ),
        rounds=native.rounds,
        until=from_datetime(native.until),
    )


def _same(manifest: Manifest, native: Native, loop: Loop, data: Dataset, learner: Learner) -> None:
    """Raises NoStart where the champion has learned something else."""
    pairs = {
        "estimator": (native.estimator, loop.model.estimator),
        "task": (manifest.task, str(loop.model.task)),
        "class_weight": (native.class_weight, loop.model.class_weight),
        "label": (manifest.label, loop.label.value.text),
        "classes": (", ".join(manifest.classes), ", ".join(learner.classes)),
    }
    for what, (then, now) in pairs.items():
        if then != now:
            raise NoStart(f"{what} of version {manifest.version} is {then!r:.200}, and {now!r:.200} now")
    if manifest.inputs != [column.declared() for column in data.table.columns]:
        raise NoStart(f"version {manifest.version} has other inputs")
    changed = sorted({name for name, _ in manifest.views.items() ^ data.views.items()})
    if changed:
        raise NoStart(f"the views that version {manifest.version} learned from have changed: {', '.join(changed)}")


def refusal(start: Start, params: Params, learner: Learner, judged_from: int) -> str | None:
    """Why a fit with `params`, judged on rows asked from `judged_from` on, does not go on from `start`; None: it does."""
    growth = growing(params)
    assert growth is not None, "its parameters ask for a warm start"
    if start.until >= judged_from:
        until, since = (to_rfc3339(at) for at in (start.until, judged_from))
        return (
            f"version {start.version} has learned rows up to {until}, and would be judged on rows from {since} on: "
            "it would be asked what it was told"
        )
    if start.rounds + growth.added > growth.most:
        return (
            f"version {start.version} has {start.rounds} {growth.unit}, {growth.added} more would pass "
            f"max_{growth.unit}: {growth.most}"
        )
    return learner.refuses(start, params)


def cold(params: Params) -> Params:
    """The same from scratch."""
    growth = growing(params)
    return params if growth is None else regrown(params, growth.cold())


def kept(loop: Loop, learned: Learned, table: Table, start: Start | None) -> Mapping[str, bytes]:
    """Files for the package that the next warm start reads; none where the loop asks for no such thing.

    `table`: what `learned` was fitted on, from `start`.
    """
    native = learned.fitted.native() if loop.model.goes_on else None
    if native is None:
        return {}
    ending, raw = native
    encoding = learned.fitted.encoding
    said = Native(
        file=f"native.{ending}",
        estimator=loop.model.estimator,
        class_weight=loop.model.class_weight,
        rounds=learned.fitted.rounds or 0,
        until=to_datetime(max(int(table.known_at[-1]), start.until if start else 0)),
        columns=list(encoding.columns),
        categories={name: list(known) for name, known in encoding.categories.items()},
        one_hot=encoding.one_hot,
    )
    return {NATIVE_FILE: msgspec.json.encode(said, order="sorted"), said.file: raw}


def note(start: Start, params: Params) -> str:
    """What a reader of the run has to know of its start."""
    growth = growing(params)
    assert growth is not None, "it is a warm start"
    return f"warm start: {growth.added} {growth.unit} on top of the {start.rounds} of version {start.version}"
