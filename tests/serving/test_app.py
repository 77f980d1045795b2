"""What a client gets: boxes, or one clear error."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

import winnow
from winnow.data.images import read_image
from winnow.errors import DataError
from winnow.serving.app import create_app
from winnow.serving.shield import HEADERS

from .conftest import jpeg


def test_boxes_come_back_in_pixels_with_names_times_and_tokens(post):
    answer = post(jpeg(), threshold=0, rho=0.25)
    (result,) = answer.json()["results"]
    assert answer.status_code == 200
    assert (result["width"], result["height"], result["rho"]) == (80, 60, 0.25)
    assert all(0 <= x1 <= x2 <= 80 and 0 <= y1 <= y2 <= 60 for x1, y1, x2, y2 in (
        each["box"] for each in result["detections"]))
    assert 0 < result["tokens"]["kept"] < result["tokens"]["total"]
    assert {"backbone", "encoder", "decoder"} <= set(result["timing_ms"]["stages"])


def test_the_service_finds_what_predict_finds(post, checkpoint, tmp_path):
    (tmp_path / "noise.jpg").write_bytes(jpeg())
    found = winnow.load(str(checkpoint)).predict(tmp_path / "noise.jpg", threshold=0)
    served = post(jpeg(), threshold=0).json()["results"][0]["detections"]
    assert [each["box"] for each in served] == [pytest.approx(box, abs=0.05) for box in found.xyxy.tolist()]
    assert [each["class_name"] for each in served] == found.data["class_name"].tolist()


def test_only_the_classes_asked_for_come_back(post):
    found = post(jpeg(), threshold=0, classes=["ring", "bars"]).json()["results"][0]["detections"]
    assert {each["class_name"] for each in found} <= {"ring", "bars"}


def test_several_images_are_answered_in_their_order(client):
    sizes = [(80, 60), (60, 80), (40, 40)]
    answer = client.post("/v1/detect", files=[("image", ("a.png", jpeg(*size, kind="PNG"))) for size in sizes])
    assert [(each["width"], each["height"]) for each in answer.json()["results"]] == sizes


def test_a_budget_chooses_a_share_and_says_whether_it_fits(post):
    tight = post(jpeg(), budget_ms=0.001).json()["results"][0]
    ample = post(jpeg(), budget_ms=1e5).json()["results"][0]
    assert (tight["rho"], tight["within_budget"]) == (0.02, False)
    assert (ample["rho"], ample["within_budget"]) == (1.0, True)


def test_what_the_network_did_is_told_on_request(post):
    result = post(jpeg(), threshold=0, show=["samples", "flops"]).json()["results"][0]
    first = result["levels"][0]
    assert sum(each["count"] for each in result["levels"]) == result["tokens"]["kept"]
    assert first["height"] * first["width"] >= first["count"]
    assert all(len(point) == 4 for layer in result["samples"][0] for point in layer)
    assert result["gflops"]["backbone"] > 0


def test_places_that_were_read_belong_to_the_detections_beside_them(post):
    every = post(jpeg(), threshold=0, show="samples").json()["results"][0]
    rings = post(jpeg(), threshold=0, show="samples", classes="ring").json()["results"][0]
    assert rings["samples"] == [places for places, each in zip(every["samples"], every["detections"], strict=True)
                                if each["class_name"] == "ring"]


def test_looking_closely_does_not_change_what_comes_later(post):
    before = post(jpeg(), threshold=0, show="samples").json()["results"][0]["detections"]
    post(jpeg(), show="flops")
    assert post(jpeg(), threshold=0, show="samples").json()["results"][0]["detections"] == before


@pytest.mark.parametrize(("fields", "named"), [
    ({"rho": 2}, "rho"), ({"rho": "nan"}, "rho"), ({"threshold": -1}, "threshold"), ({"budget_ms": 0}, "budget_ms"),
    ({"model": "other"}, "model"), ({"classes": "unicorn"}, "classes"), ({"show": "all"}, "show.0"),
    ({"rho": 0.1, "budget_ms": 5}, "budget_ms"), ({"classes": "x" * 999}, "classes.0"),
])
def test_an_argument_that_is_wrong_is_named(post, fields, named):
    answer = post(jpeg(), **fields)
    assert answer.status_code == 422
    assert list(answer.json()["error"]["fields"]) == [named]


@pytest.mark.parametrize(("parts", "status", "code"), [
    ([("rho", (None, "0.1"))], 422, "no_image"),
    ([("image", (None, "street.jpg"))], 422, "wrong_argument"),  # curl without @
    ([("image", ("a.jpg", jpeg(8, 8)))] * 17, 422, "too_many_images"),
    ([("image", ("a.jpg", b"x"))] * 1000, 400, "malformed"),
    ([("classes", (None, "ring"))] * 1000, 400, "malformed"),
    ([("model", (None, "x" * 5000))], 400, "malformed"),
])
def test_a_form_without_images_or_with_too_much_is_refused(client, parts, status, code):
    answer = client.post("/v1/detect", files=parts)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "UploadFile" not in answer.text


@pytest.mark.parametrize(("kind", "body"), [
    ("application/json", b'{"image": 1}'), ("application/x-www-form-urlencoded", b"image=1"), ("image/jpeg", jpeg()),
    ("", b"abc")])
def test_what_is_no_form_with_files_is_told_how_to_send_one(client, kind, body):
    answer = client.post("/v1/detect", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "no_form")
    assert "curl" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("charset", "status"), [
    ("; charset=UTF-8", 200), ('; charset="utf-8"', 200), ("; charset=punycode", 415), ("; CHARSET*=idna", 415),
    ("; charset=utf-8; charset = utf-7", 415)])
def test_names_of_fields_are_read_as_utf_8_only(client, charset, status):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + jpeg() + b"\r\n--x--\r\n"
    kind = f"multipart/form-data{charset}; boundary=x"
    answer = client.post("/v1/detect", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status


def test_nothing_that_was_asked_is_overlooked(client):
    def refusal(fields, query=""):
        parts = [("image", ("a.jpg", jpeg())), *((name, (None, value)) for name, value in fields)]
        answer = client.post(f"/v1/detect{query}", files=parts)
        assert answer.status_code == 422
        return answer.json()["error"]["message"]

    assert "did you mean threshold?" in refusal([("treshold", "0.9")])
    assert "rho is there 2 times" in refusal([("rho", "0.1"), ("rho", "0.9")])
    assert "not of the address" in refusal([], "?rho=0.1")


def test_addresses_are_refused_unless_they_were_allowed(client):
    answer = client.post("/v1/detect", files={"url": (None, "http://example.com/a.jpg")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "urls_closed")


def test_a_picture_that_would_become_a_huge_input_is_refused_before_it_is_decoded(post):
    answer = post(jpeg(60_000, 1, kind="PNG"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_narrow")
    assert post(jpeg(600, 80)).status_code == 200


def test_every_broken_image_gets_a_clear_4xx_and_the_service_goes_on(post, shared):
    folder = shared / "data" / "broken" / "images"
    for path in sorted(folder.iterdir()):
        try:
            read_image(path)
            expected = {200}
        except DataError:
            expected = {400, 415, 422}
        answer = post(path.read_bytes(), path.name)
        assert answer.status_code in expected, path.name
        assert answer.status_code == 200 or answer.json()["error"]["message"], path.name
    assert post(jpeg()).status_code == 200


def test_a_name_that_climbs_is_only_a_name(post):
    assert post(jpeg(), name="../../etc/passwd").json()["results"][0]["name"] == "image 0"


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/samples/..%2f1.jpg"])
def test_no_path_reaches_a_file(client, path):
    assert client.get(path).status_code in (404, 422)


def test_errors_of_the_router_have_the_form_of_all_errors(client):
    assert client.get("/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/v1/detect").json()["error"]["code"] == "method_not_allowed"


def test_a_mistake_of_ours_is_told_without_what_is_inside(service, post, monkeypatch):
    def fail(*_):
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(service, "_result", fail)
    client = TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False)
    answer = client.post("/v1/detect", files={"image": jpeg()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "unexpected")
    assert "secret" not in answer.text
    assert all(answer.headers[name] == value for name, value in {**HEADERS, "Cache-Control": "no-store"}.items())
    monkeypatch.undo()
    assert post(jpeg()).status_code == 200


def test_models_and_limits_are_listed_without_paths(client):
    told = client.get("/v1/models").json()
    assert [each["name"] for each in told["models"]] == ["shapes"]
    assert told["models"][0]["sparse"]
    assert "/" not in str(told)


def test_health_readiness_and_metrics(client, post):
    post(jpeg())
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    text = client.get("/metrics").text
    assert 'winnow_requests_total{route="/v1/detect",status="200"}' in text
    assert 'winnow_batch_images_count{model="shapes"}' in text


def test_who_asks_for_headers_only_gets_them(client):
    answers = [client.head(path) for path in ("/", "/healthz", "/readyz", "/page/style.css")]
    assert [each.status_code for each in answers] == [200] * 4


def test_strangers_paths_do_not_become_labels(client):
    client.get("/a-path-of-a-stranger")
    assert "stranger" not in client.get("/metrics").text


def test_the_page_and_the_description_need_nothing_from_outside(client):
    for file in files("winnow.serving.page").iterdir():
        if file.name.endswith((".html", ".css", ".js")):
            addresses = re.findall(r"https?://[^\s\"'`]+", file.read_text(encoding="utf-8"))
            assert addresses == [], file.name
            assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]* src=)", file.read_text(encoding="utf-8"))
    for address in ("/", "/docs", "/page/main.js", "/page/style.css", "/samples/0.jpg", "/openapi.json"):
        assert client.get(address).status_code == 200, address
