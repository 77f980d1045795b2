"""How much may be sent, how slowly, and by how many."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from winnow.serving.app import create_app
from winnow.serving.intake import Intake
from winnow.serving.metrics import Metrics
from winnow.serving.settings import Limits

from .conftest import jpeg

BOUNDARY = b"--x\r\nContent-Disposition: form-data; name=image; filename=a.jpg\r\n\r\n"


def talk(app, chunks, *, headers=(), pause=0.0):
    """The status, the answer and the headers that an application gives to a body in chunks."""
    sent = []

    async def receive():
        await asyncio.sleep(pause if chunks else 60)
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/detect", "raw_path": b"/v1/detect", "query_string": b"",
             "headers": [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x"),
                         (b"transfer-encoding", b"chunked"), *headers], "scheme": "http", "root_path": "",
             "http_version": "1.1", "client": None, "server": ("localhost", 80), "state": {}}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(each.get("body", b"") for each in sent[1:])), dict(sent[0]["headers"])


def bounded(app, **limits):
    return Intake(app, Limits(**limits), Metrics(), lambda: 7)


async def reads_all(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def test_a_body_that_grows_beyond_the_limit_is_refused_though_nothing_announced_it():
    status, answer, _ = talk(bounded(reads_all, upload=100), [b"x" * 60, b"x" * 60, b""])
    assert (status, answer["error"]["code"]) == (413, "too_large")


def test_a_body_that_announces_too_much_is_not_handed_on():
    reached = []

    async def app(scope, receive, send):
        reached.append(scope)

    status, *_ = talk(bounded(app, upload=100), [b""], headers=[(b"content-length", b"101")])
    assert (status, reached) == (413, [])


def test_a_slow_upload_ends_and_so_does_its_connection():
    status, answer, headers = talk(bounded(reads_all, upload_seconds=0.05), [b"x"] * 9, pause=0.03)
    assert (status, answer["error"]["code"], headers[b"connection"]) == (408, "too_slow", b"close")


def test_the_applications_own_forms_are_bounded_in_the_same_way(service, monkeypatch):
    monkeypatch.setattr(service, "settings", replace(service.settings, limits=Limits(upload=500)))
    status, answer, _ = talk(create_app(service), [BOUNDARY + jpeg(), b"\r\n--x--\r\n"])
    assert (status, answer["error"]["code"]) == (413, "too_large")


def test_a_client_that_still_sends_hears_why_it_is_refused():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 415, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    chunks = [b"x"] * 9
    sent = []

    async def ask(headers):
        rest = list(chunks)

        async def receive():
            return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

        async def send(message):
            sent.append((message["type"], len(rest)))

        await bounded(app)({"type": "http", "method": "POST", "path": "/v1/detect", "headers": headers}, receive, send)

    announced = (b"content-length", b"9")
    asyncio.run(ask([announced]))
    asyncio.run(ask([announced, (b"expect", b"100-continue")]))
    left = [left for kind, left in sent if kind == "http.response.start"]
    assert left == [0, 9]  # who asks first is not told to send


class Visit:
    """Several requests through one door, whose application answers when it is told to."""

    def __init__(self, **limits):
        self.inside, self.leave = asyncio.Event(), asyncio.Event()
        self.intake = bounded(self._app, **limits)

    async def ask(self, *chunks, pause=0.0):
        """The status and the headers of the answer to a body in chunks."""
        answers, rest = [], list(chunks)

        async def receive():
            if not rest:
                await asyncio.sleep(60)
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest) or pause > 0}

        async def send(message):
            answers.append(message)

        headers = [(b"transfer-encoding", b"chunked")]
        await self.intake({"type": "http", "method": "POST", "path": "/v1/detect", "headers": headers}, receive, send)
        return answers[0]["status"], dict(answers[0]["headers"])

    async def _app(self, scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        self.inside.set()
        await self.leave.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def test_who_comes_when_the_house_is_full_is_told_when_to_come_again():
    async def both():
        visit = Visit(waiting=0, batch=1)
        first = asyncio.create_task(visit.ask(b""))
        await visit.inside.wait()
        refused = await visit.ask(b"")
        visit.leave.set()
        return refused, (await first)[0]

    (status, headers), first = asyncio.run(both())
    assert (status, headers[b"retry-after"], first) == (429, b"7", 200)


def test_slow_uploads_keep_nobody_out():
    async def both():
        visit = Visit(waiting=0, batch=1, patience_seconds=0.2)
        slow = [asyncio.create_task(visit.ask(b"x", pause=0.1)) for _ in range(9)]
        await asyncio.sleep(0.05)
        visit.leave.set()
        good = await visit.ask(b"")
        return good[0], [(await each)[0] for each in slow]

    assert asyncio.run(both()) == (200, [408] * 9)


def test_all_requests_together_hold_a_bounded_number_of_bytes():
    async def both():
        visit = Visit(house=100)
        first = asyncio.create_task(visit.ask(b"x" * 60))
        await visit.inside.wait()
        refused = await visit.ask(b"x" * 60)
        visit.leave.set()
        return refused[0], (await first)[0], (await visit.ask(b"x" * 60))[0]

    assert asyncio.run(both()) == (429, 200, 200)
