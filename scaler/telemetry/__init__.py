"""Prometheus and what speaks like it: history, signals, and what is wrong with them."""
