"""Encoded bytes -> tensors."""
