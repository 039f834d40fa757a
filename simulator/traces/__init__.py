"""Traffic to replay: read, imported, generated, edited."""
