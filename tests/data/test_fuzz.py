"""Whatever stands in the files: a data set loads clean or is refused in one line that names the file; nothing else.

WINNOW_FUZZ=20000 throws that many at each format; the suite throws a few.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from winnow.data import Annotations, find_data, read_annotations
from winnow.errors import DataError, UsageError

from .conftest import coco
from .other_formats import as_voc, as_yolo

FEW = settings(max_examples=int(os.environ.get("WINNOW_FUZZ", "50")), deadline=None, derandomize=False,
               suppress_health_check=list(HealthCheck))
FEWER = settings(FEW, max_examples=FEW.max_examples // 5)
SCALARS = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
           | st.sampled_from([10**400, -1, 0, 1, 2, 1.0, 1e308, -0.0, "1", "", "../1.png", "/", "a\nb", "\0", "\ud800",
                              [], {}, [[]], [1, 2, 3, 4], [0, 0, 5, 5], {"id": 1}]))
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5)
                    | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=5)
BITS = [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 50, b"{", b"}", b'"', b",", b"NaN", b"-Infinity", b"1e999",
        b"null", b"\n", b"nan", b"-1", b" ", b"*a", b"&a", b"!!python/name:os.system", b":", b"- ", b"%YAML 9", b"<",
        b"</annotation>", b"<object>", b"</object>", b"&x;", b"<!DOCTYPE a>", b"<!--", b"<![CDATA[", b"<name>a</name>",
        b'<?xml version="1.0" encoding="utf-7"?>', b"<bndbox><xmin>1</xmin></bndbox>", b"<difficult>1</difficult>"]


@st.composite
def bytes_near(draw: st.DrawFn, raw: bytes) -> bytes:
    """The bytes with a few pieces cut out, repeated, or put in."""
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(raw))), draw(st.integers(0, 20))
        piece = draw(st.sampled_from(BITS) | st.binary(max_size=6) | st.just(raw[start: start + length] * 2))
        raw = raw[:start] + piece + raw[start + length:]
    return raw[:draw(st.integers(0, len(raw)))] if draw(st.integers(0, 5)) == 0 else raw


@st.composite
def json_near(draw: st.DrawFn, content: Any) -> Any:
    """The values with a few of them replaced, removed, repeated, or moved to where others were."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 4))):
        places = list(holders(content))
        if not places:
            return content
        holder, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(["replace", "remove", "repeat", "move"]))
        if what == "remove":
            del holder[key]
        elif what == "repeat" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif what == "move":
            other, place = draw(st.sampled_from(places))
            holder[key] = copy.deepcopy(other[place])
        else:
            holder[key] = copy.deepcopy(draw(JSON))
    return content


def holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list and dictionary of a value with every place in it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from holders(value[key])


def holds(load: Callable[[], Annotations], *names: str) -> None:
    """Loading gives clean annotations, or an error of one line with one of these names."""
    try:
        found = load()
    except (DataError, UsageError) as error:
        said = str(error)
        assert "\n" not in said and any(name in said for name in names), said
        return
    assert np.isfinite(found.boxes).all() and np.isfinite(found.areas).all()
    assert (found.boxes[:, 2:] > 0).all() and (found.areas >= 0).all()
    assert found.starts.tolist() == sorted(found.starts) and found.starts[-1] == len(found.boxes) == len(found.labels)
    assert all(0 <= label < len(found.categories) for label in found.labels)
    for index, image in enumerate(found.images):
        corners = found.boxes[found.of(index)]
        assert (corners[:, :2] >= -1).all()
        sides = [side + 1 if side else np.inf for side in (image.width, image.height)]  # 0 is not known
        assert (corners[:, :2] + corners[:, 2:] <= sides).all()
    assert all("\n" not in line for line in found.problems.lines())


def read(path: Path) -> Annotations:
    """The split of a data set, as the verbs read it."""
    source = find_data(path).split("train")
    return read_annotations(source.annotations, source.images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three pictures of 40 x 30 pixels and a COCO file, YOLO's files and VOC's of them."""
    root = tmp_path_factory.mktemp("fuzz")
    (root / "images").mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30)).save(root / "images" / f"{number}.png")
    (root / "whole.json").write_text(json.dumps(coco(3)))
    split = ("train", root / "whole.json", root / "images")
    as_yolo(root / "yolo", split)
    as_voc(root / "voc", split)
    return root


@FEW
@given(content=json_near(coco(3)), look=st.booleans())
def test_coco_of_any_structure(folder, content, look):
    path = folder / "near.json"
    path.write_text(json.dumps(content))
    holds(lambda: read(path) if look else read_annotations(path), "near.json")


@FEW
@given(data=st.data())
def test_coco_of_any_bytes(folder, data):
    path = folder / "near.json"
    path.write_bytes(data.draw(bytes_near((folder / "whole.json").read_bytes())))
    holds(lambda: read(path), "near.json")


@FEW
@given(data=st.data())
def test_yolo_labels_of_any_bytes(folder, data):
    words = st.lists(st.floats().map(str) | st.integers().map(str) | st.text(max_size=3), max_size=9).map(" ".join)
    lines = st.lists(words, max_size=4).map(lambda each: "\n".join(each).encode(errors="surrogatepass"))
    raw = data.draw(lines | bytes_near(b"0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.9 0.1 0.5 0.9\n"))
    (folder / "yolo" / "labels" / "train" / "1.txt").write_bytes(raw)
    holds(lambda: read(folder / "yolo"), "data.yaml")


@FEW
@given(data=st.data())
def test_yolo_descriptions_of_any_bytes(folder, data):
    path = folder / "yolo" / "near.yaml"
    path.write_bytes(data.draw(bytes_near((folder / "yolo" / "data.yaml").read_bytes())))
    holds(lambda: read(path), "near.yaml")


@FEW
@given(data=st.data())
def test_voc_files_of_any_bytes(folder, data):
    whole = (folder / "voc" / "Annotations" / "2.xml").read_bytes()
    (folder / "voc" / "Annotations" / "1.xml").write_bytes(data.draw(bytes_near(whole)))
    holds(lambda: read(folder / "voc"), "Annotations")


@FEWER
@given(content=json_near(coco(3)), decode=st.booleans())
def test_check_answers_any_coco_file_with_a_verdict(folder, winnow, content, decode):
    path = folder / "near.json"
    path.write_text(json.dumps(content))
    said = winnow("check", path, "--out", folder / "page.html", "--json", folder / "found.json",
                  *([] if decode else ["--fast"]))
    assert said.code in (0, 1, 2) and "Traceback" not in said.out + said.err, said
    found = json.loads((folder / "found.json").read_text())
    assert found["summary"]["verdict"] == ("clean", "problems", "unusable")[said.code]
    assert (said.code == 0) == all(each["severity"] == "note" for each in found["problems"])
