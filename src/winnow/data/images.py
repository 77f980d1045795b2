"""Pictures from files, as a viewer displays them: one rule for training, evaluation and prediction.

EXIF orientation is applied. Content decides the format, not the file's name. Alpha is put over white, of an animation the
first frame is taken, 16-bit grey is divided by 257, palettes and CMYK become RGB.
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
from PIL import Image, ImageOps, UnidentifiedImageError

from winnow.errors import DataError

LARGEST = 178_956_970  # pixels of an image, where Pillow too suspects a decompression bomb (half a gigabyte of RGB)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")  # none that starts a program
ORIENTATION = 0x0112  # EXIF tag; 5 to 8 turn the picture by a quarter
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\x3b"}  # the last bytes of a complete file

Source = str | os.PathLike[str] | BinaryIO


class _UnscaledError(ValueError):
    """Pixel values whose range nobody can tell."""


@dataclass(frozen=True)
class ImageFacts:
    """What can be told of an image file without decoding its pixels."""

    size: tuple[int, int]    # (height, width) as displayed
    stored: tuple[int, int]  # (height, width) before EXIF rotation
    animated: bool


def read_image(source: Source) -> Image.Image:
    """The picture in RGB as displayed.

    Args:
        source: path, or a file opened for reading bytes.

    Raises:
        DataError: with the reason, if the file is missing, empty, damaged, no image, or larger than LARGEST pixels.

    """
    with _opened(source) as image:
        image.load()
        return _as_rgb(ImageOps.exif_transpose(image))


def inspect_image(path: Path) -> ImageFacts:
    """Size and state of an image file from its first and last bytes; only a suspicious one is decoded.

    Raises:
        DataError: as `read_image`. Damage in the middle of a file can go unseen until the pixels are read.

    """
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        facts = ImageFacts((width, height) if turned else (height, width), (height, width),
                           image.format == "GIF" and getattr(image, "is_animated", False))
        if not _ends_well(path, image.format or ""):
            image.load()
    return facts


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """The image behind a source, its pixels not yet decoded; whatever goes wrong inside becomes a DataError."""
    name = str(source) if isinstance(source, str | os.PathLike) else str(getattr(source, "name", "image"))
    try:
        with _stream(source) as stream:
            if not stream.read(1):
                raise DataError(f"{name}: the file is empty")
            stream.seek(0)
            with Image.open(stream, formats=_formats()) as image:
                if image.width * image.height > LARGEST:
                    raise DataError(f"{name}: {image.width} x {image.height} pixels are too many (limit {LARGEST})")
                yield image
    except DataError:
        raise
    except Exception as error:  # a decoder given a stranger's bytes may raise anything
        raise DataError(f"{name}: {_reason(error)}") from error


def _stream(source: Source) -> AbstractContextManager[BinaryIO]:
    return Path(source).open("rb") if isinstance(source, str | os.PathLike) else nullcontext(source)


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"this is no image that can be read (known: {', '.join(_formats())})"
    if isinstance(error, Image.DecompressionBombError):
        return f"the image has too many pixels (limit {LARGEST})"
    if isinstance(error, _UnscaledError):
        return str(error)
    return f"the image is damaged or cut off ({error or type(error).__name__})"


def _ends_well(path: Path, kind: str) -> bool:
    """Whether a file ends as its format must. A few zeros or blanks behind the end are usual and harmless."""
    if kind not in ENDS:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read().rstrip(b"\0\r\n ").endswith(ENDS[kind])


def _as_rgb(image: Image.Image) -> Image.Image:
    """RGB from any mode that can be told without guessing."""
    if image.mode == "F":
        raise _UnscaledError("floating point pixels have no agreed range; convert the image to 8 bits")
    if image.mode.startswith("I"):
        return _scaled(image).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """16-bit grey in 8 bits. Pillow itself would turn everything above 255 white."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise _UnscaledError("grey values beyond 16 bits have no agreed range; convert the image to 8 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
