"""Contracts between the services: event types, topics, envelope. Nothing here does I/O."""
