from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from winnow.data import CocoData, find_data, loader, transforms
from winnow.data.archives import index_path, open_file
from winnow.data.shards import samples_path
from winnow.data.write_shards import main, write_shards
from winnow.errors import UsageError

VIEW = transforms.evaluation(30, None)


@pytest.fixture
def source(write, content) -> Path:
    content["images"] += [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(4, 9)]
    content["annotations"][1]["iscrowd"] = 1
    content["annotations"][0]["area"] = 123
    return write(content, "instances_train.json").parents[1]


@pytest.fixture
def shards(source, tmp_path) -> Path:
    """Three samples in a shard of that size."""
    write_shards(source, tmp_path / "shards", size=12_000)
    return tmp_path / "shards"


def opened(root: Path, **options) -> CocoData:
    found = find_data(root).split("train")
    return CocoData(found.annotations, found.images, VIEW, **options)


def images(data: CocoData, workers: int = 0, done: int = 0, **options) -> list[list[tuple[int, float]]]:
    """Ids and pixels' sums of the batches of an epoch."""
    batches = loader(data, 2, train=True, workers=workers, seed=5, **options)
    batches.set_epoch(3, done)
    return [[(meta.image_id, float(image.sum())) for meta, image in zip(metas, batch.images, strict=True)]
            for batch, _, metas in batches]


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def foreign(root: Path, samples: dict[str, bytes]) -> Path:
    """A shard as another program writes it: without an index."""
    root.mkdir()
    (root / "categories.json").write_text('[{"id": 3, "name": "disc"}]')
    with tarfile.open(root / "train-0.tar", "w") as tar:
        for name, content in samples.items():
            add(tar, name, content)
    return root


def test_shards_hold_what_the_data_set_holds(source, shards):
    assert len(list(shards.glob("train-*.tar"))) > 1
    one, other = opened(source), opened(shards)
    ours, theirs = other.ground_truth(), one.ground_truth()
    assert ours["annotations"] == theirs["annotations"]
    assert ours["categories"] == theirs["categories"]
    assert not len(other.problems)
    for index in range(len(one)):
        torch.testing.assert_close(one[index].image, other[index].image, rtol=0, atol=0)


def test_the_order_is_that_of_a_folder_with_any_number_of_workers(source, shards):
    assert images(opened(shards, train=True), workers=2) == images(opened(source, train=True))


def test_an_epoch_taken_up_in_the_middle_gives_the_rest(shards):
    data = opened(shards, train=True)
    assert images(data, done=2) == images(data)[2:]


def test_processes_share_an_epoch_without_repetition(shards):
    data = opened(shards, train=True)
    seen = [number for rank in range(2) for batch in images(data, rank=rank, world=2) for number, _ in batch]
    assert sorted(seen) == list(range(1, 9))


@pytest.mark.parametrize("beside", [[index_path], [samples_path], [index_path, samples_path]])
def test_without_what_is_beside_it_a_shard_gives_the_same(shards, beside):
    before = opened(shards).fingerprint()
    for tar in shards.glob("*.tar"):
        for path in beside:
            path(tar).unlink()
        tar.touch()
    assert opened(shards).fingerprint() == before


def test_at_the_start_no_shard_is_read(shards):
    before = opened(shards).fingerprint()
    for tar in shards.glob("*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
        os.utime(tar, (0, 0))
    assert opened(shards, inspect=False).fingerprint() == before


@pytest.mark.parametrize("spoil", [
    lambda text: "1" + text, lambda text: "", lambda text: text[:-1], lambda text: text[:text.rindex("\n", 0, -1) + 1]],
    ids=["of another", "empty", "cut in a line", "cut at a line"])
def test_samples_that_are_not_of_their_shard_or_not_whole_are_read_from_it(shards, spoil):
    before = opened(shards).fingerprint()
    for tar in shards.glob("*.tar"):
        samples_path(tar).write_text(spoil(samples_path(tar).read_text().replace("[", "[ ")))
    assert opened(shards).fingerprint() == before


def test_samples_that_are_older_than_their_shard_are_not_believed(shards):
    before = opened(shards).fingerprint()
    for tar in shards.glob("*.tar"):
        samples_path(tar).write_text(samples_path(tar).read_text().replace('"boxes":[[', '"boxes":[[1'))
        os.utime(samples_path(tar), (0, 0))
    assert opened(shards).fingerprint() == before


@pytest.mark.parametrize("text", ["", "[]", '{"bytes": 1}', '{"bytes": SIZE, "files": {"a": [0, 1e9]}}',
                                  '{"bytes": SIZE, "files": {"a": 3}}'])
def test_an_index_that_is_not_of_its_shard_is_not_used(shards, text):
    before = opened(shards).fingerprint()
    tar = min(shards.glob("*.tar"))
    index_path(tar).write_text(text.replace("SIZE", str(tar.stat().st_size)))
    tar.touch()
    assert opened(shards).fingerprint() == before


def test_a_shard_that_breaks_off_is_used_up_to_there_and_named(shards):
    tar = min(shards.glob("*.tar"))
    raw = tar.read_bytes()
    tar.write_bytes(raw[:len(raw) // 2])
    data = opened(shards)
    assert data.problems.counts["shard-damaged"] == 1
    assert tar.name in next(each.where for each in data.problems if each.code == "shard-damaged")
    assert 0 < len(data) < 8


def test_a_damaged_header_is_no_end(shards):
    tar = min(shards.glob("*.tar"))
    with tarfile.open(tar) as archive:
        place = archive.getmembers()[2].offset
    raw = bytearray(tar.read_bytes())
    raw[place:place + 200] = b"x" * 200
    tar.write_bytes(raw)
    index_path(tar).unlink()
    data = opened(shards)
    assert data.problems.counts["shard-damaged"] == 1


def test_a_damaged_image_in_a_shard_is_counted(shards):
    tar = min(shards.glob("*.tar"))
    with tarfile.open(tar) as archive:
        member = archive.getmembers()[0]
    raw = bytearray(tar.read_bytes())
    raw[member.offset_data:member.offset_data + member.size] = bytes(member.size)
    tar.write_bytes(raw)
    data = opened(shards)
    assert (len(data), data.problems.counts["image-damaged"]) == (7, 1)


def test_shards_of_others_are_read_with_cocos_entries_too(tmp_path):
    entry = {"bbox": [1, 2, 10, 10], "category_id": 3}
    root = foreign(tmp_path / "theirs", {
        "./a.png": picture(), "./a.json": json.dumps([entry]).encode(),
        "b/c.png": picture(), "b/c.json": b'{"boxes": [[1, 2, 10, 10]], "categories": [3], "crowd": [1]}'})
    data = opened(root)
    assert (len(data), len(data.problems)) == (2, 0)
    assert [len(data[index].target.labels) for index in range(2)] == [1, 0]


@pytest.mark.parametrize(("name", "content", "code"), [
    ("b.json", b"{", "malformed-sample"), ("b.json", b"3", "malformed-sample"),
    ("b.json", b'{"boxes": [[1, 2, 3, 4]], "categories": []}', "malformed-sample"),
    ("b.json", b'{"boxes": [3], "categories": [3]}', "malformed-box"),
    ("b.json", b'{"annotations": [7]}', "malformed-annotation"), ("c.json", b"{}", "sample-incomplete")])
def test_what_is_wrong_with_a_sample_is_counted(tmp_path, name, content, code):
    good = b'{"boxes": [[1, 2, 10, 10]], "categories": [3]}'
    root = foreign(tmp_path / "theirs", {"a.png": picture(), "a.json": good, "b.png": picture(), name: content})
    assert opened(root).problems.counts[code] >= 1


def test_links_in_a_tar_lead_nowhere(tmp_path):
    root = foreign(tmp_path / "theirs", {})
    with tarfile.open(root / "train-0.tar", "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(FileNotFoundError):
        open_file(root / "train-0.tar" / "a.png")


def test_the_command_writes_shards_and_refuses_a_folder_in_use(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(source), str(out), "--size", "1MB"]) == 0
    assert find_data(out).split("train").images == out
    assert main([str(source), str(out)]) == 2
    assert main([str(source), str(tmp_path / "more"), "--size", "much"]) == 2
    assert "is no size" in capsys.readouterr().err


def test_shards_without_their_categories_are_not_taken_for_whole(shards):
    (shards / "categories.json").unlink()
    with pytest.raises(UsageError, match=r"categories\.json"):
        find_data(shards)


def test_shards_are_repaired_into_a_folder(shards, tmp_path, winnow):
    assert winnow("check", shards, "--fix", tmp_path / "fixed").code == 0
    assert opened(tmp_path / "fixed").ground_truth()["annotations"] == opened(shards).ground_truth()["annotations"]
    assert winnow("check", shards, "--fix", tmp_path / "linked", "--link").code == 2


def test_a_tar_beside_other_data_is_no_shard(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").touch()
    (tmp_path / "VOCtrainval_06-Nov-2007.tar").touch()
    assert find_data(tmp_path).layout == "Pascal VOC layout"
