"""A script with a mistake of its own."""

raise RuntimeError("the script's own mistake")
