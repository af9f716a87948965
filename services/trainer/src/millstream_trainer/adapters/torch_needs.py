"""Whether PyTorch is there: it is gigabytes, so an extra, and nothing imports it before a loop asks for it."""

from __future__ import annotations

from importlib.util import find_spec

from millstream_trainer.errors import RunFailed

NEEDED = ("torch", "onnxscript", "safetensors")
INSTALL = "pip install 'millstream-trainer[torch]'"


def needed(by: str) -> None:
    """Raises RunFailed naming what `by` lacks."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise RunFailed(f"{by} needs {', '.join(missing)}, not installed beside the trainer; {INSTALL}")
