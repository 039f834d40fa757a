"""A situation in, a decision with its reasons out. Pure: no clock, no I/O, no chance, no pandas."""
