"""Data sets: image folders, and what else coordl reads; docs/sources.md."""
