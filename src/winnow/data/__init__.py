"""Data sets: found on disk, read with care, batched."""

from winnow.data.annotations import Annotations, ImageRecord, read_annotations
from winnow.data.batching import Loaded, Loader, Meta, collate, loader
from winnow.data.categories import Category
from winnow.data.coco import CocoData, Example
from winnow.data.folders import DataFolder, SplitSource, find_data
from winnow.data.images import read_image
from winnow.data.problems import Problem, Problems, UnusableError

__all__ = [
    "Annotations", "Category", "CocoData", "DataFolder", "Example", "ImageRecord", "Loaded", "Loader", "Meta",
    "Problem", "Problems", "SplitSource", "UnusableError", "collate", "find_data", "loader", "read_annotations",
    "read_image",
]
