"""Pictures from files, as a viewer displays them: one rule for training, evaluation and prediction.

EXIF orientation is applied. Content decides the format, not the file's name. Alpha is put over white, of an animation
the first frame is taken, 16-bit grey is divided by 257, palettes and CMYK become RGB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from .archives import open_file

LARGEST = 178_956_970  # pixels of an image, where Pillow too suspects a decompression bomb (half a gigabyte of RGB)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # none that starts another program
EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
                        ".ppm", ".pgm", ".jp2", ".mpo", ".avif"))  # of pictures among other files
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\x3b"}  # the last bytes of a complete file
TAIL = 4096  # bytes at the end that are looked at
ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Source = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True)
class ImageFacts:
    """What can be told of an image file without decoding its pixels."""

    size: tuple[int, int]    # (height, width) as displayed
    stored: tuple[int, int]  # (height, width) before EXIF rotation
    animated: bool
    turn: int = 1            # EXIF orientation, 1 to 8
    format: str = ""         # as Pillow calls it: "JPEG"
    transparent: bool = False  # whether there is an alpha channel or a transparent colour


def read_image(source: Source) -> Image.Image:
    """The picture in RGB as displayed, from a path or a file opened for reading bytes.

    DataError gives the reason if it is missing, empty, damaged, no image, larger than LARGEST pixels, or has grey
    values whose range nobody can tell.
    """
    with _opened(source) as image:
        return as_displayed(image)


def as_displayed(image: Image.Image) -> Image.Image:
    """A picture that is open already in RGB as displayed; what goes wrong is told by Pillow's own errors."""
    image.load()
    turn = UPRIGHT.get(_orientation(image))
    upright = _as_rgb(image)
    return upright if turn is None else upright.transpose(turn)


def inspect_image(path: Path) -> ImageFacts:
    """Size and state of an image file from its first and last bytes; only a suspicious one is decoded.

    Fails like `read_image`, but damage in the middle of a file can go unseen until the pixels are read.
    """
    with _opened(path) as image:
        if not _ends_well(path, image.format or ""):
            image.load()
        stored = (image.height, image.width)
        turn = _orientation(image)
        size = stored[::-1] if turn in (5, 6, 7, 8) else stored
        return ImageFacts(size, stored, image.format == "GIF" and getattr(image, "is_animated", False), turn,
                          image.format or "", image.has_transparency_data)


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """The image behind a source, its pixels not yet decoded; whatever goes wrong inside becomes a DataError."""
    name = str(source) if isinstance(source, (str, os.PathLike)) else str(getattr(source, "name", "image"))
    try:
        with _stream(source) as stream:
            stream.seek(0)
            if not stream.read(1):
                raise DataError(f"{name}: the file is empty")
            stream.seek(0)
            with Image.open(stream, formats=_formats()) as image:
                if image.width * image.height > LARGEST:
                    raise Image.DecompressionBombError
                yield image
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a decoder given a stranger's bytes may raise anything
        raise DataError(f"{name}: {_reason(error)}") from error


def _stream(source: Source) -> AbstractContextManager[BinaryIO]:
    return open_file(Path(source)) if isinstance(source, (str, os.PathLike)) else nullcontext(source)


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"this is no image that can be read (known: {', '.join(_formats())})"
    if isinstance(error, Image.DecompressionBombError):
        return f"the image has too many pixels (limit {LARGEST:,}); make it smaller"
    if isinstance(error, _RangeError):
        return f"{error}; convert the image to 8 bits"
    if isinstance(error, OSError) and error.strerror:
        return f"the file can't be read ({error.strerror})"
    return f"the image is damaged or cut off ({error or type(error).__name__})"


def _ends_well(path: Path, kind: str) -> bool:
    """Whether a file ends as its format must. A few zeros or blanks behind the end are usual and harmless."""
    if kind not in ENDS:
        return False
    with open_file(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        tail = file.read()
    if kind == "PNG" and b"eXIf" in tail:  # orientation behind the pixels, seen only after decoding them
        return False
    return tail.rstrip(b"\0\r\n ").endswith(ENDS[kind])


def _orientation(image: Image.Image) -> int:
    """How the picture must be turned, 1 to 8; an unreadable EXIF block asks for nothing."""
    try:
        # PNG's own method would decode the pixels to find a block that is not there.
        return int(Image.Image.getexif(image).get(ORIENTATION, 1))
    except Exception:
        return 1


class _RangeError(ValueError):
    """Pixel values whose range nobody can tell."""


def _as_rgb(image: Image.Image) -> Image.Image:
    """RGB from any mode that can be told without guessing."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM", None)):
        raise _RangeError(f"pixels of mode {image.mode} have no agreed range")
    if image.mode.startswith("I"):
        return _scaled(image).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """16-bit grey in 8 bits. Pillow itself would turn everything above 255 white."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise _RangeError("grey values beyond 16 bits have no agreed range")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
