"""The decision log, and what is read from it."""
