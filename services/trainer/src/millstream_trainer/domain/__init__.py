"""Nouns and maths of the trainer: no I/O, no clock."""
