"""The pages in a real browser: what is drawn is there, in light and dark, wide and narrow, and no network is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow import cli

from ..training.conftest import PICTURES, configured
from .conftest import keep_screenshot

VIEWS = {"light": ("light", 1280), "dark": ("dark", 1280), "narrow": ("light", 390), "narrow-dark": ("dark", 390)}
EXPECTED = {  # least drawings and pictures, and words
    "run": (8, 3, ("Learning", "Loss by term", "Learning rate", "Precision by recall", "Confusions", "Kept tokens",
                   "How to go on", "Reproduce it")),
    "val": (1, 3, ("Classes and sizes", "Best thresholds", "Confusions", "Kept tokens", "Reproduce it")),
    "check": (1, 1, ("Winnow",)),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a second with its page, the page of an evaluation, and the doctor's."""
    from winnow.data.generated import write_data  # noqa: PLC0415
    from winnow.training.loop import train  # noqa: PLC0415

    root = tmp_path_factory.mktemp("pages")
    data = write_data(root / "shapes", train=6, val=4, recipe=PICTURES)
    run = train(configured(data, root / "run"))
    for words in (["val", str(data), "--model", str(run.root), "--page", str(root / "val.html")],
                  ["check", str(data), "--out", str(root / "check.html")]):
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        assert left.value.code in (0, 1)  # the doctor may find something
    return {"run": run.report, "val": root / "val.html", "check": root / "check.html"}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", EXPECTED)
def test_everything_on_a_page_is_there_to_see(browser, pages, name, view):
    scheme, width = VIEWS[view]
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    keep_screenshot(page, f"{name}-{view}")
    drawings, pictures, words = EXPECTED[name]
    seen = page.evaluate(LOOK)
    assert not told and not [url for url in asked if not url.startswith(("file:", "data:"))]
    assert len(seen["drawings"]) >= drawings and all(w > 200 and h > 100 for w, h in seen["drawings"])
    assert all(length > 10 for length in seen["lines"]) and (seen["lines"] or name == "check")
    assert len(seen["pictures"]) >= pictures and all(w > 100 and h > 30 and natural > 0
                                                     for w, h, natural in seen["pictures"])
    assert min(seen["ticks"]) >= 8  # pixels: legible on a telephone
    assert seen["overflow"] <= 0  # nothing sticks out sideways
    assert (seen["light"] > 0.8) == (scheme == "light")
    text = page.inner_text("body")
    assert all(word in text for word in words)
    page.close()


@pytest.mark.parametrize("name", EXPECTED)
def test_behind_every_chart_is_its_table(browser, pages, name):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(pages[name].as_uri())
    for figure in page.query_selector_all("figure:has(svg)"):
        assert figure.query_selector("svg").get_attribute("aria-label")
        figure.query_selector("summary").click()
        table = figure.query_selector("details table")
        assert table.is_visible() and len(table.query_selector_all("tbody tr")) >= 1
    for table in page.query_selector_all("section > .scroll table"):
        assert table.is_visible()
    page.close()


LOOK = """() => {
  const size = each => { const box = each.getBoundingClientRect(); return [box.width, box.height]; };
  const all = what => [...document.querySelectorAll(what)];
  const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number);
  return {
    drawings: all('svg').map(size),
    lines: all('polyline').filter(each => each.points.length > 1).map(each => each.getTotalLength()),
    pictures: all('img').map(each => [...size(each), each.naturalWidth]),
    ticks: all('svg text').map(each => each.getBoundingClientRect().height),
    overflow: document.documentElement.scrollWidth - innerWidth,
    light: (red + green + blue) / 765,
  };
}"""
