"""Benchmarks: every number of the README and the docs comes from here."""
