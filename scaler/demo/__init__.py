"""The demo: the daemon's own loop on an embedded fleet, and what came of it."""
