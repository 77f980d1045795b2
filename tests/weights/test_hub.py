"""Repositories of the Hugging Face Hub, here a server on this machine, are detectors by their names."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

import winnow
from winnow import models
from winnow.errors import UsageError
from winnow.weights import checkpoints, hub
from winnow.weights.checkpoints import Checkpoint
from winnow.weights.convert import convert_to_hugging_face

from .conftest import Quiet
from .test_hugging_face import CATS, shaken
from .test_renaming import BASE

COMMIT = "0123456789" * 4


class Repository(BaseHTTPRequestHandler):
    """Answers as the Hub does for the files of a folder, which is someone/detector."""

    folder: Path
    asked: list[str]

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.asked.append(self.path.rpartition("/")[2])
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        owner, name, _, commit, file = self.path.strip("/").split("/")
        error = ("RepoNotFound" if f"{owner}/{name}" != "someone/detector" or commit not in ("main", COMMIT)
                 else "" if (self.folder / file).is_file() else "EntryNotFound")
        content = b"" if error else (self.folder / file).read_bytes()
        self.send_response(404 if error else 200)
        for key, value in (("X-Error-Code", error), ("X-Repo-Commit", COMMIT), ("ETag", f'"{len(content)}-{file}"'),
                           ("Content-Length", str(len(content)))):
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Repository]]:
    """A repository with a small DETR, and an empty cache."""
    detector = shaken(models.build("detr", BASE))
    checkpoints.save(tmp_path / "ours.safetensors", Checkpoint(detector, "detr", BASE, CATS, {"size": 64}))
    convert_to_hugging_face(tmp_path / "ours.safetensors", tmp_path / "repository")
    handler = type("Handler", (Repository,), {"folder": tmp_path / "repository", "asked": []})
    server = Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WINNOW_OFFLINE")
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "hf_hub_download", partial(
        huggingface_hub.hf_hub_download, endpoint=f"http://127.0.0.1:{server.server_port}", etag_timeout=2))
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_repository_is_a_detector_by_its_name(repository: type[Repository], tmp_path: Path) -> None:
    found = winnow.load("someone/detector", "cpu")
    wanted = checkpoints.load(tmp_path / "ours.safetensors").detector.state_dict()
    assert all(torch.equal(weight, wanted[key]) for key, weight in found.detector.state_dict().items())
    assert (found.categories, found.size) == (CATS, 64)
    assert sorted(set(repository.asked)) == ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_a_commit_is_fetched_and_converted_once_and_then_needs_no_network(
        repository: type[Repository], monkeypatch: pytest.MonkeyPatch) -> None:
    winnow.load("someone/detector", "cpu")
    asked = list(repository.asked)
    monkeypatch.setattr(hub, "hf_hub_download", partial(
        huggingface_hub.hf_hub_download, endpoint="http://127.0.0.1:9", etag_timeout=2))
    winnow.load("someone/detector", "cpu")
    assert repository.asked == asked


def refused(name: str) -> str:
    with pytest.raises(UsageError) as caught:
        winnow.load(name, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_in_parts_are_fetched_part_by_part(repository: type[Repository]) -> None:
    folder = repository.folder
    (folder / "model.safetensors").rename(folder / "model-1-of-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1-of-1.safetensors"}}))
    assert winnow.load("someone/detector", "cpu").size == 64


def test_what_is_no_detector_is_refused_before_its_weights_are_fetched(repository: type[Repository]) -> None:
    (repository.folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "describes bert" in refused("someone/detector")
    assert repository.asked == ["config.json"]


def test_a_repository_without_what_is_needed_is_told(repository: type[Repository]) -> None:
    (repository.folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in refused("someone/detector")


def test_a_repository_without_a_description_is_told(repository: type[Repository]) -> None:
    (repository.folder / "config.json").unlink()
    assert "it has no config.json" in refused("someone/detector")


def test_unknown_repositories_and_a_hub_out_of_reach_are_told(repository: type[Repository],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("nobody/nothing").startswith("there is no file or folder nobody/nothing, and no public repository")

    def unreachable(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand so on")  # what is left of trying for long

    with monkeypatch.context() as cut_off:
        cut_off.setattr(hub, "hf_hub_download", unreachable)
        assert "can't be had from the Hugging Face Hub: no connection" in refused("someone/detector")
    monkeypatch.setenv("WINNOW_OFFLINE", "1")
    assert "WINNOW_OFFLINE forbids fetching it" in refused("someone/detector")
    assert not repository.asked


@pytest.mark.parametrize(("text", "name"), [
    ("SenseTime/deformable-detr-with-box-refine-two-stage", True), ("facebook/detr-resnet-50", True), ("a/b.c", True),
    ("detr-r50", False), ("a/b/c", False), ("./b", False), ("a/b.safetensors", False), ("a/b.pth", False),
    ("/a", False), ("a/", False), ("here/model", False),
])
def test_a_name_of_a_repository_is_told_from_a_path(text: str, name: bool, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub.is_name(text) is name
