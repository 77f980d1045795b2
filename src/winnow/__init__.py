"""Winnow: detection transformers that compute only the tokens that matter."""

__version__ = "0.1.0"
