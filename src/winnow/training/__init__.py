"""From a recipe and a data set to weights."""

from .recipes import RECIPES, Recipe
from .run import RunConfig, RunFolder

__all__ = ["RECIPES", "Recipe", "RunConfig", "RunFolder"]
