"""What is read from the decision log: timelines, findings, charts, the audit report."""
