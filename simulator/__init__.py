"""The same loop on virtual time, against a simulated fleet."""
