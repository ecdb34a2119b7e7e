"""dsanalyzer measures data stalls of a training job and predicts what would remove them."""

__version__ = "0.1.0"
