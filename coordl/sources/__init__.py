"""Data sets that are more than folders of pictures; docs/sources.md."""
