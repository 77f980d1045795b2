"""Data sets: found on disk, read with care, batched."""

from .annotations import Annotations, ImageRecord, read_annotations
from .batching import Loaded, Loader, Meta, collate, loader
from .categories import Category
from .coco import CocoData, Example
from .contents import SplitSource
from .folders import DataFolder, find_data
from .images import read_image
from .problems import Problem, Problems, UnusableError

__all__ = [
    "Annotations", "Category", "CocoData", "DataFolder", "Example", "ImageRecord", "Loaded", "Loader", "Meta",
    "Problem", "Problems", "SplitSource", "UnusableError", "collate", "find_data", "loader", "read_annotations",
    "read_image",
]
