"""The files of a package: the manifest names the hashes of the others, so one hash vouches for all. And what it is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec

from millstream.contracts.events import Outcome
from millstream.contracts.package import MANIFEST_FILE, Manifest
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.state import LoopState

NAME = re.compile(r"[0-9]+-(?P<run>[0-9a-f]+)-(?P<attempt>[0-9]+)")


def files_of(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """`files` and the manifest that vouches for them."""
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    vouching = msgspec.structs.replace(manifest, files=hashes)
    return {**files, MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(vouching))}


def name_of(spec: RunSpec) -> str:
    """What the package is called among those of its loop."""
    return f"{spec.version}-{spec.run}-{spec.attempt}"


def is_unclaimed(state: LoopState, name: str) -> bool:
    """Whether nobody will ask for the package of this name: its run ended without a model, or with that of a later attempt.

    False for a run that is under way (its word may be on its way) and for one that this journal does not know.
    """
    found = NAME.fullmatch(name)
    run = state.run(found["run"]) if found is not None else None
    if found is None or run is None or run.outcome is None:
        return False
    if any(ref.uri.endswith(f"/{state.loop}/{name}") for ref in state.versions.values()):
        return False
    return run.outcome is Outcome.FAILED or int(found["attempt"]) < run.attempt
