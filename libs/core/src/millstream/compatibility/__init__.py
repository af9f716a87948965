"""Whether who reads with one schema of a stream can use what was written with another: each format by its own rules."""
