"""What features knows of events, without I/O."""
