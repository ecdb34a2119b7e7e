"""Staging: how minibatches get from worker processes to the training loop.

Shared memory that is reused (slots), the worker's and the consumer's end of it, and the watch over
workers that hang or die.
"""
