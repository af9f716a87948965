"""What drift's ports are in reality: one file per technology."""
