"""A real browser for the tests of pages, and a server whose page it visits.

Needs playwright (the extra "browser") and Chromium; `make test-browser` sets both up. Screenshots are kept in the
folder WINNOW_SCREENSHOTS, where that is set.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
           "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # a camera


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra: winnow-detr[browser]")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(browser, tmp_path_factory) -> Iterator[str]:
    """A server with a model that finds something everywhere, and one that does not."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra: pip install -e '.[serve]'")
    from winnow.serving.server import configuration  # noqa: PLC0415
    from winnow.serving.service import Service  # noqa: PLC0415
    from winnow.serving.settings import Named, Settings  # noqa: PLC0415
    from winnow.weights import checkpoints  # noqa: PLC0415

    from ..serving.conftest import Inside, write_checkpoint  # noqa: PLC0415

    calm = write_checkpoint(tmp_path_factory.mktemp("visited") / "calm.safetensors")
    loaded = checkpoints.load(calm)
    for name, weight in loaded.detector.named_parameters():
        if name.endswith("classify.bias"):
            weight.data.fill_(0)
    eager = calm.with_name("eager.safetensors")
    checkpoints.save(eager, loaded)
    settings = Settings((Named("eager", str(eager)), Named("calm", str(calm))))
    service = Service(settings, lambda: Inside(settings))  # type: ignore[arg-type, return-value]
    service.start()
    config = configuration(service)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def visit(browser, address):
    """Open the page at a size; at the end nothing may have gone wrong, and nothing been asked of another server."""
    told, asked, contexts = [], [], []

    def visit(search: str = "", width: int = 1280, scheme: str = "light", height: int = 900) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme,
                                      accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/{search}")
        answered(page, 2 if "compare=1" in search else 1)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not [line for line in told if not any(status in line for status in ("401", "413", "422"))]
    assert not [url for url in asked if not url.startswith((address, "blob:", "data:"))]


def answered(page: Any, panes: int = 1) -> None:
    page.wait_for_function("count => document.querySelectorAll('.summary strong').length === count && "
                           "!document.querySelector('.pane[aria-busy]')", arg=panes)


def summary(page: Any) -> str:
    return page.inner_text(".summary >> nth=0")


def give(page: Any, data: bytes, name: str) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def move(page: Any, slider: str, value: float) -> None:
    page.evaluate("""([name, value]) => {
      const slider = document.querySelector(name);
      slider.value = value;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }""", [slider, value])


def dark_pixels(page: Any, canvas: int) -> int:
    """Points of a canvas of the first pane (0 photo, 1 map, 2 points) on which something was painted."""
    return page.evaluate("""i => {
      const each = document.querySelectorAll(".stage canvas")[i];
      const { data } = each.getContext("2d").getImageData(0, 0, each.width, each.height);
      return data.filter((value, at) => at % 4 === 3 && value > 0).length;
    }""", canvas)


def keep_screenshot(page: Any, name: str) -> None:
    folder = os.environ.get("WINNOW_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
