"""How requests become latencies, one engine a file."""
