"""Nouns and maths of features: no I/O, no async, no clock."""
