"""Differential phases in run order: ingestion, prep, fetch; and the evidence for each."""
