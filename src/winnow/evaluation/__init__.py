"""How good a detector is, and what it costs."""

from .coco import Metrics, evaluate, predictions_to_coco
from .flops import Flops, Parameters, count_flops, count_parameters, published_flops

__all__ = ["Flops", "Metrics", "Parameters", "count_flops", "count_parameters", "evaluate", "predictions_to_coco",
           "published_flops"]
