"""What supervises a detector: matching, set losses, and the decoder attention map."""

from .criterion import Criterion, Losses
from .matching import Matcher

__all__ = ["Criterion", "Losses", "Matcher"]
