"""Millstream's shared core: contracts, project files, runtime. No feast, evidently or kubernetes in here."""

__version__ = "0.1.0"
