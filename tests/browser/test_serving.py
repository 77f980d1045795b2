"""The page of `winnow serve`, driven in Chromium as a person would: settings, maps, sizes, colours, the keyboard."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import answered, dark_pixels, keep_screenshot, move, summary


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
