"""Whole loaders over one image folder, each a program of its own, for end_to_end.py."""
