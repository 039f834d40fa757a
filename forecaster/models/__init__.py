"""One model a file, unaware of each other."""
