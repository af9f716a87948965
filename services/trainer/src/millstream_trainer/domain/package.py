"""The files of a package: the manifest names the hashes of the others, so one hash vouches for all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from millstream.contracts.package import MANIFEST_FILE, Manifest


def files_of(manifest: Manifest, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """`files` and the manifest that vouches for them."""
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    vouching = msgspec.structs.replace(manifest, files=hashes)
    return {**files, MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(vouching))}
