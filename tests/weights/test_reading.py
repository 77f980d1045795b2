"""Files of weights that are none: what is wrong with them is said in words, not in torch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from winnow.errors import UsageError
from winnow.weights.reading import read_file


class Stranger:
    """What torch would have to execute to load."""


BROKEN = r"it is broken, or no file of PyTorch$"


@pytest.mark.parametrize(("zipped", "spoil", "told"), [
    (True, lambda raw: raw[:len(raw) // 2], r"it is not whole; fetch or copy it again$"),
    (False, lambda raw: raw[:len(raw) // 2], BROKEN),
    (True, lambda raw: raw[100:], BROKEN),
    (True, lambda raw: bytes(len(raw)), BROKEN),
    (True, lambda raw: b"", r"it is empty$"),
    (True, lambda raw: b"<!DOCTYPE html>\n<html>", r"it is text, and begins with '<!DOCTYPE html>': a web page"),
    (True, lambda raw: b"version https://git-lfs\noid sha256:1\n", r"it is text, and begins with 'version https://gi"),
])
def test_a_damaged_file_of_pytorch_is_told(tmp_path: Path, zipped: bool, spoil: Callable[[bytes], bytes],
                                           told: str) -> None:
    file = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.ones(100)}}, file, _use_new_zipfile_serialization=zipped)
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(UsageError, match=rf"a\.pth can't be read as weights: {told}") as caught:
        read_file(file)
    assert "\n" not in str(caught.value)


def test_what_would_have_to_be_executed_is_named(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "extra": Stranger()}, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"it holds more than tensors and plain values \(\S+Stranger\), and nothing"):
        read_file(tmp_path / "a.pth")


@pytest.mark.parametrize(("content", "told"), [(b"", "it is empty"), (b"\x10\0\0\0\0\0\0\0{", "was it cut short")])
def test_a_damaged_safetensors_file_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match=told):
        read_file(tmp_path / "a.safetensors")
