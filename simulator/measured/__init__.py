"""What was measured of real pods, and the pod profile that it comes to."""
