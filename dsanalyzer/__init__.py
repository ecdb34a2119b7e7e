"""dsanalyzer measures data stalls of a training job and predicts what would remove them."""

from dsanalyzer.wrapping import wrap

__all__ = ["wrap"]
__version__ = "0.1.0"
