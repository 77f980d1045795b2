"""Who may ask."""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from winnow.serving.app import create_app
from winnow.serving.settings import Settings

from .conftest import jpeg

KEY = "0123456789abcdef"


@pytest.fixture
def serve(service, monkeypatch):
    """A client of the same service with other doors."""
    def serve(**doors):
        monkeypatch.setattr(service, "settings", replace(service.settings, **doors))
        return TestClient(create_app(service), base_url="http://localhost")

    return serve


@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
def test_a_key_is_asked_for_where_there_is_one(serve, path):
    client = serve(api_key=KEY)
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get(path, headers={"Authorization": f"Basic {KEY}"}).status_code == 401
    assert client.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_nothing_is_detected_without_the_key(serve):
    client = serve(api_key=KEY)
    answer = client.post("/v1/detect", files={"image": jpeg()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_needed")


def test_health_and_the_page_need_no_key(serve):
    client = serve(api_key=KEY)
    assert [client.get(path).status_code for path in ("/", "/healthz", "/readyz")] == [200] * 3


def test_another_sites_page_may_not_ask(client):
    for origin in ("https://evil.example", "null", "http://localhost:9"):
        answer = client.post("/v1/detect", files={"image": jpeg()}, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_itself_may_ask(client):
    answer = client.post("/v1/detect", files={"image": jpeg()}, headers={"Origin": "http://localhost"})
    assert answer.status_code == 200


def test_an_origin_that_was_named_may_ask(serve):
    client = serve(origins=("https://friend.example",))
    answer = client.get("/v1/models", headers={"Origin": "https://friend.example"})
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert client.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize(("host", "status"), [
    ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example", 421), ("localhost.evil", 421)])
def test_a_server_of_this_machine_answers_to_its_own_names_only(client, host, status):
    assert client.get("/v1/models", headers={"Host": host}).status_code == status


def test_a_server_of_a_network_answers_to_the_names_it_was_given():
    assert Settings((), host="0.0.0.0").answers_to == ()
    assert Settings((), host="0.0.0.0", hosts=("winnow.example",)).answers_to == ("winnow.example",)


def test_every_answer_forbids_what_the_page_does_not_need(client):
    for path in ("/", "/nothing", "/v1/models"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
