"""Millstream's shared core: contracts, project files, runtime, client. No feast, evidently or kubernetes in here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    # Every service imports this package; only who speaks HTTP to one pays for a client.
    if name in ("AsyncClient", "Client"):
        from millstream import client

        return getattr(client, name)
    raise AttributeError(f"module 'millstream' has no attribute {name!r}")
