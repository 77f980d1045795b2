"""Long JSON files are read in pieces, and what is wrong with them is told as if they had been read at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from winnow.data import UnusableError, long_json
from winnow.data.long_json import read_json

from .test_fuzz import bytes_near

TEXT = json.dumps({"a": 1, "list": [{"x": [1.5, -2e3]}, "two\n", 31415, None, [], {}], "b": {"list": [1]}}, indent=1)


@pytest.fixture(params=[1, 3, 7, 1 << 20])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "BLOCK", request.param)


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "file.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_a_list_goes_to_its_taker_entry_by_entry_and_all_else_is_there(tmp_path: Path, encoding: str) -> None:
    seen: list[object] = []
    found = read_json(written(tmp_path, TEXT.encode(encoding)), {"list": lambda: seen})
    assert found["list"] is seen and found == json.loads(TEXT)


def test_a_key_that_comes_again_counts_as_the_last(tmp_path: Path) -> None:
    assert read_json(written(tmp_path, '{"a": [1, 2], "a": [3]}'), {"a": list}) == {"a": [3]}


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("text", ["[1, 2", "{", '{"a"', '{"a":', '{"a": [1, 2', '{"a": "b', '{"a": tru', '{"b": 1,',
                                  '{"a": [1,\n'])
def test_a_file_that_breaks_off_is_told_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(UnusableError, match=f"incomplete.*byte {len(text)} is the last") as caught:
        read_json(written(tmp_path, text), {"a": list})
    assert caught.value.problem.code == "json-cut-off"


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("text", [TEXT.replace("-2000.0", "-2000.0 4"), TEXT.replace('"b":', '"b";'), TEXT + "\n x",
                                  TEXT.replace("null,", "nil,"), TEXT.replace('"b"', "b"), '{"list": [1,]}'])
def test_the_place_of_a_mistake_is_that_in_the_whole_text(tmp_path: Path, text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as theirs:
        json.loads(text)
    with pytest.raises(UnusableError) as ours:
        read_json(written(tmp_path, text), {"list": list})
    assert f"line {theirs.value.lineno}, column {theirs.value.colno}" in str(ours.value)


@pytest.mark.parametrize("size", range(1, 40))
def test_a_number_that_a_piece_ends_in_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    text = '{"x": 12.5, "y": 1e5, "z": 3.25e+4, "list": [1, 2.5, -Infinity]}'
    monkeypatch.setattr(long_json, "BLOCK", size)
    assert read_json(written(tmp_path, text.encode()), {"list": list}) == json.loads(text)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=bytes_near(TEXT.encode()), size=st.integers(1, 40))
def test_pieces_of_any_size_say_what_the_whole_does(tmp_path: Path, content: bytes, size: int) -> None:
    file, answers = written(tmp_path, content), []
    for block in (size, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(long_json, "BLOCK", block)
            try:
                answers.append(repr(read_json(file, {"list": list})))
            except UnusableError as error:
                answers.append(error.problem.code)
    assert answers[0] == answers[1]
