"""Results as HTML pages, one file each: a page is sections, a section is made of parts, drawings are charts."""

from .charts import histogram, line_chart, short
from .page import Page, render, write_page
from .parts import (
    NOTHING,
    Html,
    Notice,
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
    notices,
    numbers,
    points,
    section,
    settings,
    steps,
    table,
)

__all__ = ["NOTHING", "Html", "Notice", "Number", "Page", "Picture", "Step", "card", "chart", "charts", "flat",
           "folded", "gallery", "heading", "histogram", "installed", "line_chart", "matrix", "notes", "notices",
           "numbers", "points", "render", "section", "settings", "short", "steps", "table", "write_page"]
