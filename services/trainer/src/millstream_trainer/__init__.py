"""trainer learns, carefully: it decides what is retrained, trains it, and writes what is served."""
