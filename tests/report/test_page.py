from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from winnow.errors import UsageError
from winnow.report.page import Number, Picture, RunReport, Step, embed, flat, installed, points, render, write_report

VOID = {"meta", "img"}


class Balanced(HTMLParser):
    """Fails where tags do not close in order; collects tags and the text outside the style sheet."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))  # <line ... />

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if "style" in self.open else data


def read(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    return parser


@pytest.fixture
def run() -> RunReport:
    picture = Picture("Image 7", "3 objects, 2 found", Image.new("RGB", (40, 20), "red"))
    return RunReport(
        title="Shapes <among> straw & \"crumbs\"", summary="It learned.",
        numbers=[Number("AP", "41.3", "held-out")],
        history=[{"epoch": 1, "loss": 9.5, "AP": None}, {"epoch": 2, "loss": 7.25, "AP": 0.413, "AP50": 0.6}],
        per_class={"star": {"AP": 0.2, "AP50": 0.5}, "ghost": {"AP": None, "AP50": None},
                   "disc": {"AP": 0.7, "AP50": 0.9}},
        gallery=[picture], tokens=[picture], config={"size": {"width": 64}, "options": {}, "scratch": True},
        versions=installed(), seed=42, steps=[Step("Predict", "winnow predict a.jpg --model runs/demo > log")],
    )


def test_the_page_is_well_formed_and_shows_every_part(run):
    page = read(render(run))
    headings = [text for text in ("Learning", "Classes", "Held-out images", "Kept tokens", "How to go on",
                                  "Reproduce it") if text in page.text]
    assert len(headings) == 6
    for shown in ("41.3", "size.width", "42", "winnow predict a.jpg --model runs/demo > log", "torch"):
        assert shown in page.text


def test_the_page_names_no_address_beyond_itself(run):
    page = render(run)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link", page)
    sources = [attrs["src"] for tag, attrs in read(page).seen if "src" in attrs]
    assert sources and all(source and source.startswith("data:image/") for source in sources)


def test_words_are_never_markup(run):
    page = render(run)
    assert "<among>" not in page and "&lt;among&gt; straw &amp;" in page


def test_every_picture_is_described(run):
    for tag, attrs in read(render(run)).seen:
        if tag == "img":
            assert attrs["alt"] == "Image 7. 3 objects, 2 found"
        if tag == "svg":
            assert attrs["role"] == "img" and "ends at" in (attrs["aria-label"] or "")


def test_classes_are_listed_best_first_and_undefined_ones_last(run):
    text = read(render(run)).text
    assert text.index("disc") < text.index("star") < text.index("ghost")


def test_a_report_of_nothing_is_still_a_page():
    page = read(render(RunReport("Empty", "Nothing was measured.")))
    assert "Empty" in page.text and not [tag for tag, _ in page.seen if tag in ("section", "svg", "img", "h2")]


def test_a_history_without_precision_has_one_chart():
    page = read(render(RunReport("a", "b", history=[{"epoch": 1, "loss": 3.0, "AP": float("nan")}])))
    assert [tag for tag, _ in page.seen].count("svg") == 1


def test_writing_replaces_an_older_page_and_leaves_no_rest(run, tmp_path):
    path = tmp_path / "deep" / "report.html"
    write_report(path, RunReport("Old", "old"))
    write_report(path, run)
    assert "Old" not in path.read_text(encoding="utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_can_not_be_written_is_said(run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"report\.html could not be written"):
        write_report(tmp_path / "file" / "report.html", run)


def test_pictures_are_embedded_no_wider_than_a_page_needs():
    address, size = embed(Image.new("RGB", (3600, 1000)))
    assert size == (1800, 500) and address.startswith("data:image/jpeg")
    assert embed(Image.new("RGBA", (10, 10)))[0].startswith("data:image/png")


def test_settings_are_flat_and_readable():
    assert flat({"a": {"b": [1, 2.5]}, "c": {}, "d": None, "e": False}) == [
        ("a.b", "1, 2.5"), ("c", "none"), ("d", "–"), ("e", "no")]


def test_shares_are_written_in_points():
    assert (points(0.4131), points(None), points(float("nan"))) == ("41.3", "–", "–")
