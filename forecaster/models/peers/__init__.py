"""What other autoscalers forecast with, one a file, each with its source; all are members."""
