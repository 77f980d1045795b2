from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from winnow.errors import UsageError
from winnow.report import (
    Number,
    Page,
    Picture,
    Step,
    chart,
    charts,
    flat,
    folded,
    gallery,
    heading,
    installed,
    line_chart,
    matrix,
    notes,
    numbers,
    points,
    render,
    section,
    settings,
    steps,
    table,
    write_page,
)
from winnow.report.parts import embed

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
def run() -> Page:
    picture = Picture("Image 7", "3 objects, 2 found", Image.new("RGB", (40, 20), "red"))
    drawn = line_chart("Loss", {"loss": [(1, 9.5), (2, 7.25)]})
    return Page("Winnow run", "Shapes <among> straw & \"crumbs\"", "It learned.", [
        numbers([Number("AP", "41.3", "held-out")]),
        section("Learning", "By epoch.", charts(chart("Loss", drawn, table(["epoch", "loss"], [(1, 9.5), (2, 7.25)])))),
        section("Classes", "Of each.", table(["Class", "AP"], [("disc", "70.0"), ("ghost", None)], [0.7, None]),
                matrix(["disc", "background"], ["disc", "missed"], [[3, 1], [2, 0]], "is / found")),
        section("Pictures", "Some.", gallery([picture]), gallery([picture], wide=True)),
        section("How to go on", "Type.", steps([Step("Predict", "winnow predict a.jpg --model runs/demo > log")])),
        section("Reproduce it", "With this.", settings("Configuration", {"size": {"width": 64}, "options": {}}),
                settings("Versions", installed()), notes(["2 images <left> out"]), folded("More", heading("Nothing"))),
    ])


def test_the_page_is_well_formed_and_shows_every_part(run):
    page = read(render(run))
    for shown in ("Winnow run", "Learning", "Classes", "Pictures", "How to go on", "Reproduce it", "41.3", "size.width",
                  "winnow predict a.jpg --model runs/demo > log", "torch", "2 images <left> out", "missed", "7.25"):
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


def test_every_chart_has_its_numbers_behind_it(run):
    tags = [tag for tag, _ in read(render(run)).seen]
    assert tags.count("svg") == 1
    assert "table" in tags[tags.index("svg"):tags.index("svg") + 60] and "details" in tags[tags.index("svg"):]


def test_cells_of_a_matrix_are_as_dark_as_their_share_of_the_row():
    drawn = matrix(["disc", "background"], ["disc", "missed"], [[3, 1], [0, 0]], "is / found")
    assert re.findall(r"--share: (\d+)%", drawn) == ["75", "25", "0", "0"]


def test_bars_are_as_long_as_their_shares_and_undefined_ones_are_none():
    drawn = table(["Class", "AP"], [("disc", "70.0"), ("ghost", None)], [0.7, None])
    assert re.findall(r"width: ([\d.]+)%", drawn) == ["70.0"] and "–" in drawn


def test_a_section_without_content_is_left_out():
    page = read(render(Page("k", "Empty", "Nothing was measured.", [
        section("Pictures", "None.", gallery([])), numbers([]), section("Rows", "", table(["a"], [])), notes([])])))
    assert "Empty" in page.text and not [tag for tag, _ in page.seen if tag in ("section", "svg", "img", "h2", "table")]


def test_writing_replaces_an_older_page_and_leaves_no_rest(run, tmp_path):
    path = tmp_path / "deep" / "report.html"
    write_page(path, Page("k", "Old", "old"))
    write_page(path, run)
    assert "Old" not in path.read_text(encoding="utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_can_not_be_written_is_said(run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"report\.html could not be written"):
        write_page(tmp_path / "file" / "report.html", run)


def test_pictures_are_embedded_no_wider_than_a_page_needs():
    address, size = embed(Image.new("RGB", (3600, 1000)))
    assert size == (1800, 500) and address.startswith("data:image/jpeg")
    assert embed(Image.new("RGBA", (10, 10)))[0].startswith("data:image/png")


def test_settings_are_flat_and_readable():
    assert flat({"a": {"b": [1, 2.5]}, "c": {}, "d": None, "e": False}) == [
        ("a.b", "1, 2.5"), ("c", "none"), ("d", "–"), ("e", "no")]


def test_shares_are_written_in_points():
    assert (points(0.4131), points(None), points(float("nan"))) == ("41.3", "–", "–")
