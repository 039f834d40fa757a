"""Other autoscalers' algorithms as policies, one a file, each with its source."""
