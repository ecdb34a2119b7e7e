"""Delivery: minibatches to the training loop, in torch's order and with torch's semantics."""
