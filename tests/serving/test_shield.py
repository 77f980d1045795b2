"""Who may ask."""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from winnow.errors import UsageError
from winnow.serving.app import create_app
from winnow.serving.command import KEY as KEY_NAME
from winnow.serving.command import serve_command
from winnow.serving.settings import Limits

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
    for origin in ("https://evil.example", "null", "http://localhost:9", "http://[", ""):
        answer = client.post("/v1/detect", files={"image": jpeg()}, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")
        assert "access-control-allow-origin" not in answer.headers


def test_another_sites_page_may_not_ask_by_a_picture_either(client):
    for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        assert client.get("/v1/models", headers={"Sec-Fetch-Site": site}).status_code == status
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link to the page


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


def test_a_server_of_a_network_answers_to_addresses_and_to_the_names_it_was_given(serve):
    def status(client, host):
        return client.get("/v1/models", headers={"Host": host}).status_code

    nameless, named = serve(host="0.0.0.0"), serve(host="0.0.0.0", hosts=("Winnow.Example:8443", "fe80::1"))
    hosts = ("192.168.1.5:8000", "[FE80::1]", "localhost", "winnow.example", "evil.example")
    assert [status(nameless, host) for host in hosts] == [200, 200, 200, 421, 421]
    assert [status(named, host) for host in hosts] == [421, 200, 421, 200, 421]


def test_who_asks_for_health_needs_no_name(serve):
    client = serve(host="0.0.0.0", hosts=("winnow.example",))
    assert client.get("/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200


@pytest.mark.parametrize("key", ["", "short", "0123456789 abcdef", "0123456789abcdeé"])
def test_what_is_no_key_is_told_at_the_start(monkeypatch, key):
    monkeypatch.setenv(KEY_NAME, key)
    with pytest.raises(UsageError, match="is no key"):
        serve_command(["nothing"], host="127.0.0.1", port=1, device=None, precision="fp32", origins=[], hosts=[],
                      urls=False, limits=Limits())


def test_refusals_are_counted(serve):
    client = serve(api_key=KEY)
    client.get("/v1/models")
    told = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    assert 'winnow_requests_total{route="other",status="401"}' in told


def test_every_answer_forbids_what_the_page_does_not_need(client):
    for path in ("/", "/nothing", "/v1/models"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
