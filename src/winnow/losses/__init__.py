"""What supervises a detector: matching, set losses, and what teaches the choice of tokens."""

from .classification import Classification, Sigmoid, Softmax
from .criterion import Criterion, Losses, count_objects
from .matching import Matcher
from .saliency import Saliency
from .sparsity import MeanScore

__all__ = ["Classification", "Criterion", "Losses", "Matcher", "MeanScore", "Saliency", "Sigmoid", "Softmax",
           "count_objects"]
