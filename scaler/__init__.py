"""The control loop, and the shell around it for a live system."""

import os

# Read by OpenBLAS when numpy is first imported: two threads make our small fits slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
