"""Drawn copies in a folder, each under a name of its own that depends on the list of sources only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..errors import UsageError
from ..explain.sheet import token_figure
from ..explain.tokens import token_levels
from .drawing import draw
from .predictor import Seen
from .results import writing
from .sources import Kind, camera_number, file_name, is_address, kind_of, without_prefix

KEPT_SUFFIXES = (".jpg", ".jpeg", ".png")  # copies of other formats are written as PNG
FORMATS = {".png": "PNG"}  # others are JPEG


class Pictures:
    """Drawn copies of images, and where those of videos go.

    A copy keeps its name; where two would share one, the later gets "-2" and so on. A run that is resumed gives each
    source the same name again.
    """

    def __init__(self, folder: Path, sources: Sequence[str], *, tokens: bool = False):
        self.folder, self.tokens = folder, tokens
        self._taken: set[str] = set()
        inside = folder.resolve()
        if any(_is_file(source) and Path(source).resolve().parent == inside for source in sources):
            raise UsageError(f"{folder} holds images or videos that are to be predicted, and drawn copies would "
                             f"overwrite them; name another folder")
        if folder.is_file():
            raise UsageError(f"{folder} is a file; name a folder for the drawn copies")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._names = [self._name(source) for source in sources]

    def add(self, number: int, seen: Seen) -> None:
        """Write the drawn copy of source `number` and, if asked, the sheet of its kept tokens."""
        target, *sheet = self._names[number]
        self._write(draw(seen.image, seen.detections), target)
        if sheet:
            self._write(token_figure(seen.image, seen.detections, token_levels(seen.output, seen.size)), sheet[0])

    def video(self, number: int, suffix: str, *, live: bool) -> Path:
        """Where the drawn copy of a video goes. What a camera showed before is not overwritten."""
        path = self.folder / (self._names[number][0] + suffix)
        count = 1
        while live and path.exists():
            count += 1
            path = self.folder / f"{self._names[number][0]}-{count}{suffix}"
        return path

    def _name(self, source: str) -> list[str]:
        """The name of an image's copy and of its sheet of tokens; of a video's, the stem."""
        if kind_of(source) is not Kind.IMAGE:
            return [self._free(Path(file_name(source)).stem if camera_number(source) is None
                               else source.replace(":", "-"), "")]
        name = Path(file_name(source))
        copy = self._free(name.stem, name.suffix if name.suffix.lower() in KEPT_SUFFIXES else ".png")
        return [copy, self._free(f"{Path(copy).stem}-tokens", ".png")] if self.tokens else [copy]

    def _free(self, stem: str, suffix: str) -> str:
        """A name that no source has yet, whatever the case of its letters (some disks do not tell)."""
        name, count = f"{stem}{suffix}", 1
        while name.casefold() in self._taken:
            count += 1
            name = f"{stem}-{count}{suffix}"
        self._taken.add(name.casefold())
        return name

    def _write(self, picture: Image.Image, name: str) -> None:
        target = self.folder / name
        kind = FORMATS.get(target.suffix.lower(), "JPEG")
        part = self.folder / f".copy.part{target.suffix}"
        with writing(target):
            if kind == "PNG":
                picture.save(part, kind)
            else:
                picture.save(part, kind, quality=92, subsampling=0)  # full colour resolution: box lines are thin
            part.replace(target)


def _is_file(source: str) -> bool:
    return not is_address(without_prefix(source)) and camera_number(source) is None
