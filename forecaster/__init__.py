"""The past in, a distribution over the future out. Pure: no clock, no I/O, no chance."""
