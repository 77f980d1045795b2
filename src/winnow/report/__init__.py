"""Results as HTML pages, one file each: a page is sections, a section is made of parts, drawings are charts."""

from .charts import histogram, line_chart
from .page import Page, render, write_page
from .parts import (
    Html,
    Number,
    Picture,
    Step,
    card,
    chart,
    charts,
    flat,
    folded,
    gallery,
    heading,
    installed,
    matrix,
    notes,
    numbers,
    points,
    section,
    settings,
    steps,
    table,
)

__all__ = ["Html", "Number", "Page", "Picture", "Step", "card", "chart", "charts", "flat", "folded", "gallery",
           "heading", "histogram", "installed", "line_chart", "matrix", "notes", "numbers", "points", "render",
           "section", "settings", "steps", "table", "write_page"]
