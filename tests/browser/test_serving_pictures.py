"""The page of `winnow serve`: pictures good and bad, small and large, and the ways that bring them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..serving.conftest import jpeg
from .conftest import answered, give, keep_screenshot, summary


def flat(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "#886644").save(data, "JPEG", quality=30)
    return data.getvalue()


def downloaded(page: Any) -> dict[str, Any]:
    with page.expect_download() as download:
        page.click("#save-json")
    return json.loads(Path(download.value.path()).read_text())


def test_an_uploaded_picture_is_answered_with_named_boxes(visit):
    page = visit()
    give(page, jpeg(120, 80), "noise.jpg")
    page.wait_for_function("() => Math.abs(document.querySelector('.stage').clientWidth / "
                           "document.querySelector('.stage').clientHeight - 1.5) < 0.02")
    answered(page)
    assert page.locator(".box").count() == page.locator("#objects li").count() > 0
    assert page.locator("#samples [aria-pressed=true]").count() == 0
    assert "tokens" in summary(page)


def test_a_broken_file_is_told_and_the_page_goes_on(visit):
    page = visit()
    give(page, jpeg()[:200], "broken.jpg")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "broken.jpg" in page.inner_text("#trouble")
    keep_screenshot(page, "serve-broken")
    give(page, jpeg(), "whole.jpg")
    page.wait_for_selector("#trouble", state="hidden")
    answered(page)


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
