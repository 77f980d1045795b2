"""Bytes from a stranger into a picture. Content decides the format; its size is known before a pixel is decoded."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from PIL import Image

from ..data.images import read_image
from ..errors import DataError
from .problems import Problem

SIGNATURES = {  # how files of the formats begin that a service takes: what cameras, screens and browsers write
    "JPEG": (b"\xff\xd8\xff",), "PNG": (b"\x89PNG\r\n\x1a\n",), "GIF": (b"GIF87a", b"GIF89a"), "BMP": (b"BM",),
}
ODD = {  # scans and notes of a JPEG, each of which costs a decoder time: at most so many. Films that phones put behind
    re.compile(rb"\xff\xda\x00[\x06\x08\x0a\x0c\x0e]"): 100,  # their pictures hold the two bytes of a marker by chance
    re.compile(rb"\xff\xe1..Exif\x00", re.DOTALL): 100,
}


def format_of(data: bytes) -> str | None:
    """The format that the bytes begin like; None for any that is not taken."""
    for name, beginnings in SIGNATURES.items():
        if data.startswith(beginnings):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return "AVIF" if data[4:12] in (b"ftypavif", b"ftypavis") else None


def picture(data: bytes, name: str, largest: int, fits: Callable[[int, int], bool] = lambda *_: True) -> Image.Image:
    """An upload in RGB as displayed.

    Args:
        data: the file.
        name: of the picture in errors.
        largest: most pixels.
        fits: whether the network takes a picture of that height and width, in any order.

    Raises:
        Problem: 400 for nothing at all, 413 for too many pixels, 415 for another format, 422 for damage, or for a form
            that the network does not take.

    """
    if not data:
        raise Problem(400, "empty_image", f"{name} is empty; send the bytes of an image")
    kind = format_of(data)
    if kind is None:
        raise Problem(415, "unknown_format", f"{name} is no image of a format that is taken: "
                                             f"{', '.join(SIGNATURES)}, WEBP, AVIF")
    if kind == "JPEG" and any(sum(1 for _ in form.finditer(data)) > most for form, most in ODD.items()):
        raise Problem(422, "odd_image", f"{name} has more scans or notes than a picture needs; save it anew")
    stream = io.BytesIO(data)
    try:
        with Image.open(stream, formats=[kind]) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        width = height = largest + 1
    except Exception as error:  # a decoder given a stranger's bytes may raise anything
        raise _damaged(name) from error
    if width * height > largest:
        raise Problem(413, "too_many_pixels", f"{name} has more than {largest:,} pixels; make it smaller")
    if not fits(height, width):
        raise Problem(422, "too_narrow", f"{name} is too long and narrow for this model; cut it into pieces")
    try:
        return read_image(stream)
    except DataError as error:
        raise _damaged(name) from error


def _damaged(name: str) -> Problem:
    return Problem(422, "damaged_image", f"{name}: the image is damaged or cut off")
