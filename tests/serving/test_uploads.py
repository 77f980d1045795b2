from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from winnow.serving.problems import Problem
from winnow.serving.uploads import format_of, picture

from .conftest import jpeg


def refusal(data: bytes, largest: int = 10**6) -> tuple[int, str]:
    with pytest.raises(Problem) as problem:
        picture(data, "image 0", largest)
    return problem.value.status_code, problem.value.code


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF"])
def test_content_tells_the_format(kind):
    assert format_of(jpeg(kind=kind)) == kind
    assert picture(jpeg(kind=kind), "image 0", 10**6).size == (80, 60)


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "JPEG2000", "ICO", "PDF"])
def test_other_formats_are_refused_even_where_pillow_could_read_them(kind):
    assert refusal(jpeg(kind=kind)) == (415, "unknown_format")


def test_nothing_is_told_from_damage():
    assert refusal(b"") == (400, "empty_image")
    assert refusal(jpeg()[:300]) == (422, "damaged_image")
    assert refusal(b"\xff\xd8\xff") == (422, "damaged_image")


def test_a_bomb_is_refused_before_its_pixels_are_decoded():
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    assert refusal(bomb, 50_000_000) == (413, "too_many_pixels")


def test_one_pixel_too_many_is_too_many():
    assert picture(jpeg(10, 10), "image 0", 100).size == (10, 10)
    assert refusal(jpeg(10, 10), 99) == (413, "too_many_pixels")


def test_a_picture_with_hundreds_of_scans_is_refused_unseen():
    data = io.BytesIO()
    Image.new("L", (64, 64)).save(data, "JPEG", progressive=True)
    start, end = data.getvalue().rfind(b"\xff\xda"), data.getvalue().rfind(b"\xff\xd9")
    whole, scan = data.getvalue(), data.getvalue()[start:end]
    assert picture(whole, "image 0", 10**6).size == (64, 64)
    assert refusal(whole[:end] + 300 * scan + whole[end:]) == (422, "odd_image")


def test_a_phones_picture_with_a_film_behind_it_is_a_picture():
    film = random.Random(0).randbytes(12 * 2**20)  # in which two bytes of a marker come up by chance
    assert film.count(b"\xff\xda") > 100
    assert picture(jpeg() + film, "image 0", 10**6).size == Image.open(io.BytesIO(jpeg())).size


def test_damage_is_told_without_the_decoders_words():
    with pytest.raises(Problem) as problem:
        picture(jpeg()[:1500], "image 3", 10**6)
    assert problem.value.detail == "image 3: the image is damaged or cut off"
