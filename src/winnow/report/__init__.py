"""A run as one HTML page."""

from .page import Number, Picture, RunReport, Step, installed, points, write_report

__all__ = ["Number", "Picture", "RunReport", "Step", "installed", "points", "write_report"]
