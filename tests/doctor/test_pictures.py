from __future__ import annotations

import pytest
from PIL import Image

from winnow.doctor.pictures import PART, look, look_at

from .conftest import Made


def test_damage_in_the_middle_is_seen(made: Made):
    found = look(made.spoil(made.image("train", "d.png")))
    assert "damaged" in found.damage and found.fingerprint is None


@pytest.mark.parametrize("count", [1, 2 * PART + 3])
def test_every_picture_is_looked_at_once(tmp_path, count):
    paths = [tmp_path / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.new("RGB", (3, 2)).save(path)
    paths[-1].write_bytes(b"no picture")
    looks = look_at(paths, threads=2)
    assert list(looks) == paths
    assert [path for path, each in looks.items() if each.damage] == paths[-1:]
