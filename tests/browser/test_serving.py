"""The page of `winnow serve`, driven in Chromium as a person would: by mouse, by keyboard, with good and bad pictures.

Screenshots are kept in the folder that WINNOW_SCREENSHOTS names.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from winnow.serving.settings import Named, Settings
from winnow.weights import checkpoints

from ..serving.conftest import Inside, checkpoint, jpeg  # noqa: F401
from .test_pages import CHROMIUM, QUIET, keep_screenshot, playwright

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra: pip install -e '.[serve]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def address(checkpoint: Path) -> Iterator[str]:  # noqa: F811
    """A server with a model that finds something everywhere: its classes are as likely as not."""
    from winnow.serving.server import configuration  # noqa: PLC0415
    from winnow.serving.service import Service  # noqa: PLC0415

    loaded = checkpoints.load(checkpoint)
    for name, weight in loaded.detector.named_parameters():
        if name.endswith("classify.bias"):
            weight.data.fill_(0)
    eager = checkpoint.with_name("eager.safetensors")
    checkpoints.save(eager, loaded)
    settings = Settings((Named("eager", str(eager)), Named("calm", str(checkpoint))))
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *FAKE_CAMERA])
        yield opened
        opened.close()


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


def test_an_uploaded_picture_is_answered_with_named_boxes(visit):
    page = visit()
    give(page, jpeg(120, 80), "noise.jpg")
    page.wait_for_function("() => Math.abs(document.querySelector('.stage').clientWidth / "
                           "document.querySelector('.stage').clientHeight - 1.5) < 0.02")
    answered(page)
    assert page.locator(".box").count() == page.locator("#objects li").count() > 0
    assert page.locator("#samples [aria-pressed=true]").count() == 0
    assert "tokens" in summary(page)


def test_moving_rho_asks_anew_and_the_link_keeps_it(visit):
    page = visit()
    before = summary(page)
    move(page, "#rho-a", -1.5)
    page.wait_for_function("before => document.querySelector('.summary').innerText !== before", arg=before)
    answered(page)
    assert "rho=0.032" in page.url
    page.reload()
    answered(page)
    assert page.inner_text("output[for=rho-a]") == "3.2 %"


def test_the_threshold_sorts_out_boxes_without_asking(visit):
    page = visit("?threshold=0.05")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    many = page.locator(".box").count()
    move(page, "#threshold", 0.95)
    assert page.locator(".box").count() < many
    assert not [url for url in asked if "/v1/" in url]


def test_two_shares_stand_side_by_side(visit):
    page = visit()
    page.click("#compare")
    answered(page, 2)
    shares = page.locator(".dial output").all_inner_texts()
    assert len(shares) == 2 and shares[0] != shares[1]
    assert page.locator(".bars table").count() == 2
    keep_screenshot(page, "serve-compare")
    page.click("#compare")
    answered(page, 1)


def test_two_models_stand_side_by_side(visit):
    page = visit("?compare=1&model2=calm")
    assert page.locator(".dial select").nth(1).input_value() == "calm"
    assert page.locator(".pane >> nth=1 >> .box").count() == 0 < page.locator(".pane >> nth=0 >> .box").count()


def test_a_chosen_detection_shows_where_each_layer_looked(visit):
    page = visit()
    page.locator(".box").last.click()
    page.wait_for_selector("#layers-row:not([hidden])")
    everything = dark_pixels(page, 2)
    assert page.evaluate("""() => {
      const [list, line] = ["#objects", "#objects [aria-pressed=true]"]
        .map((each) => document.querySelector(each).getBoundingClientRect());
      return list.top <= line.top + 1 && line.bottom <= list.bottom + 1;
    }""")
    move(page, "#layer", 1)
    assert page.inner_text("#layer-shown") == "layer 1 of 3"
    assert 0 < dark_pixels(page, 2) <= everything  # an untrained layer may look where others did
    keep_screenshot(page, "serve-chosen")
    page.locator("#objects [aria-pressed=true]").click()
    assert page.locator("#layers-row").is_hidden()
    assert dark_pixels(page, 2) == 0


@pytest.mark.parametrize("view", ["scores", "tokens", "attention"])
def test_maps_lie_over_the_picture_level_by_level(visit, view):
    page = visit()
    assert dark_pixels(page, 1) == 0
    page.check(f"input[value={view}]", force=True)
    page.wait_for_function("""() => {
      const map = document.querySelectorAll(".stage canvas")[1];
      return map.getContext("2d").getImageData(0, 0, map.width, map.height).data.some((value) => value > 0);
    }""")
    every = page.locator("canvas >> nth=1").evaluate("each => each.toDataURL()")
    page.select_option("#level", "1")
    assert page.locator("canvas >> nth=1").evaluate("each => each.toDataURL()") != every
    assert f"view={view}" in page.url and "level=1" in page.url
    keep_screenshot(page, f"serve-{view}")


@pytest.mark.parametrize("width", [320, 1280])
def test_no_label_hides_another(visit, width):
    page = visit("?threshold=0.05", width=width)
    labels, overlaps, outside = page.evaluate("""() => {
      const stage = document.querySelector(".stage").getBoundingClientRect();
      const seen = [...document.querySelectorAll(".box span")]
        .filter((each) => getComputedStyle(each).visibility === "visible")
        .map((each) => each.getBoundingClientRect());
      const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
      return [seen.length, seen.filter((each, i) => seen.slice(0, i).some((other) => meet(each, other))).length,
        seen.filter((each) => each.left < stage.left - 1 || each.right > stage.right + 1).length];
    }""")
    assert 0 < labels <= page.locator(".box").count()
    assert overlaps == outside == 0


def test_a_threshold_that_nothing_reaches_tells_the_best(visit):
    page = visit("?threshold=0.95")
    assert "The best is a" in page.inner_text("#objects-note")
    keep_screenshot(page, "serve-nothing")


@pytest.mark.parametrize(("scheme", "light"), [("light", True), ("dark", False)])
@pytest.mark.parametrize("width", [320, 768, 1280, 3840])
def test_the_page_fits_every_width_in_light_and_dark(visit, scheme, light, width):
    page = visit("?compare=1", width=width, scheme=scheme, height=2160 if width > 2000 else 900)
    seen = page.evaluate("""() => ({
      over: document.documentElement.scrollWidth - innerWidth,
      ground: getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number).slice(0, 3),
      small: [...document.querySelectorAll("button, select, input[type=range]")]
        .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 24).length,
    })""")
    keep_screenshot(page, f"serve-{width}-{scheme}")
    assert seen["over"] <= 0 and seen["small"] == 0
    assert (sum(seen["ground"]) > 380) == light


def test_a_chosen_theme_overrules_the_system_and_stays(visit):
    page = visit()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    page.click("#theme")
    assert page.inner_text("#theme") == "Colours: dark"
    assert page.evaluate(ground) != light
    page.reload()
    answered(page)
    assert page.evaluate(ground) != light


def test_a_broken_file_is_told_and_the_page_goes_on(visit):
    page = visit()
    give(page, jpeg()[:200], "broken.jpg")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "broken.jpg" in page.inner_text("#trouble")
    keep_screenshot(page, "serve-broken")
    give(page, jpeg(), "whole.jpg")
    page.wait_for_selector("#trouble", state="hidden")
    answered(page)


def flat(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "#886644").save(data, "JPEG", quality=30)
    return data.getvalue()


def downloaded(page: Any) -> dict[str, Any]:
    with page.expect_download() as download:
        page.click("#save-json")
    return json.loads(Path(download.value.path()).read_text())


def test_forty_megapixels_are_answered_in_their_own_pixels(visit):
    page = visit()
    give(page, flat(8000, 5000), "large.jpg")
    page.wait_for_function("() => document.querySelector('.stage canvas').width === 1600", timeout=60_000)
    answered(page)
    told = downloaded(page)
    assert (told["width"], told["height"], told["name"]) == (8000, 5000, "large.jpg")
    assert page.inner_text("#told") == ""
    keep_screenshot(page, "serve-40-megapixels")


def test_what_is_more_than_the_server_takes_is_made_smaller_and_the_page_says_so(visit):
    page = visit()
    give(page, flat(8000, 7500), "larger.jpg")
    page.wait_for_function("() => document.querySelector('#told').textContent", timeout=60_000)
    answered(page)
    assert "larger.jpg, 8000 × 7500, is more than this server takes" in page.inner_text("#told")
    told = downloaded(page)
    assert (told["width"], told["height"]) == (4096, 3840)
    keep_screenshot(page, "serve-60-megapixels")
    page.click("#samples button >> nth=1")
    page.wait_for_function("() => !document.querySelector('#told').textContent")
    answered(page)


def test_a_picture_can_be_pasted_and_dropped(visit):
    page = visit()
    for kind, carrier in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.evaluate("""async ([kind, carrier, side]) => {
          const canvas = new OffscreenCanvas(side, 50);
          canvas.getContext("2d").fillRect(0, 0, 9, 9);
          const carried = new DataTransfer();
          carried.items.add(new File([await canvas.convertToBlob()], "given.png", { type: "image/png" }));
          const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
          document.body.dispatchEvent(new Kind(kind, { [carrier]: carried, bubbles: true, cancelable: true }));
        }""", [kind, carrier, 100 if kind == "paste" else 150])
        ratio = 2 if kind == "paste" else 3
        page.wait_for_function("ratio => document.querySelector('.stage').style.aspectRatio === `${50 * ratio} / 50`",
                               arg=ratio)
        answered(page)


def test_the_camera_takes_a_picture(visit):
    page = visit()
    page.click("#camera")
    page.wait_for_function("() => document.querySelector('#video').videoWidth > 0")
    keep_screenshot(page, "serve-camera")
    page.click("#take")
    page.wait_for_selector("#camera-dialog", state="hidden")
    page.wait_for_function("() => !document.querySelector('#samples [aria-pressed=true]')")
    answered(page)


def test_the_picture_is_saved_with_what_lies_over_it(visit):
    page = visit("?view=scores")
    with page.expect_download() as download:
        page.click("#save-picture")
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"), float)
    assert saved.shape == (384, 512, 3)
    assert saved[..., 0].mean() > saved[..., 1].mean()  # heat is red


def test_everything_can_be_reached_and_read_without_a_mouse(visit):
    page = visit()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"theme", "open", "camera", "compare", "threshold", "rho-a"} <= reached
    page.locator("#objects button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#layers-row:not([hidden])")
    unnamed = page.evaluate("""() => [...document.querySelectorAll("button, input, select, [role=img]")]
      .filter((each) => each.offsetParent && !each.matches("[aria-hidden=true]") && !each.labels?.length
        && !(each.getAttribute("aria-label") ?? each.textContent).trim()).map((each) => each.outerHTML)""")
    assert unnamed == []
    assert page.get_attribute(".summary", "aria-live") == "polite"


def test_a_key_is_asked_for_until_it_is_right(visit):
    page = visit()

    def guard(route: Any) -> None:
        right = route.request.headers.get("authorization") == "Bearer right"
        route.continue_() if right else route.fulfill(status=401, json={"error": {"code": "key_needed", "message": ""}})

    page.route("**/v1/**", guard)
    page.reload()
    for key, note in (("wrong", "It is kept"), ("right", "That was not the key")):
        page.wait_for_function(
            "note => document.querySelector('#key-dialog[open] #key-note')?.textContent.startsWith(note)", arg=note)
        keep_screenshot(page, "serve-key")
        page.fill("#key", key)
        page.keyboard.press("Enter")
    answered(page)


def test_the_description_of_the_api_is_drawn_from_the_server_itself(visit, address):
    page = visit()
    page.goto(f"{address}/docs")
    page.wait_for_selector(".operation")
    keep_screenshot(page, "serve-docs")
    assert "POST /v1/detect" in page.inner_text("#operations")
    assert "budget_ms" in page.inner_text("#operations")
