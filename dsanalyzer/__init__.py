"""dsanalyzer measures data stalls of a training job and predicts what would remove them."""

from dsanalyzer.profiling import profile
from dsanalyzer.wrapping import wrap

__all__ = ["profile", "wrap"]
__version__ = "0.1.0"
