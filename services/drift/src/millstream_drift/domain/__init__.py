"""What drift knows about predictions, labels and windows: no I/O, no async, no clock."""
