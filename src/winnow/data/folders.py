"""Data that is found, not configured: which annotation files and which images lie behind a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from . import yolo
from .coco_json import CocoFile
from .contents import SplitSource
from .shards import CATEGORIES, ShardSplit
from .voc import VocSplit

ALIASES = {"valid": "val", "validation": "val", "testing": "test", "training": "train"}
LOOKED_FOR = (
    "annotations/instances_train2017.json with train2017/ (COCO)",
    "annotations/instances_train.json with images/",
    "train/_annotations.coco.json (Roboflow)",
    "data.yaml (YOLO)",
    "Annotations/ with JPEGImages/, or train/ with XML files among its images (Pascal VOC)",
    "categories.json with train-00000.tar, val-00000.tar, ... (shards)",
    "or the path of one annotation file (.json) with its images beside it, or of a data.yaml",
)


@dataclass(frozen=True)
class DataFolder:
    """What was found behind a path."""

    root: Path
    layout: str
    splits: Mapping[str, SplitSource]
    left_out: tuple[str, ...] = ()  # annotation files that can't be used, and why
    lone: bool = False  # whether all is one lot, which serves as any split

    def split(self, name: str) -> SplitSource:
        """The split of this name, or a lone lot of images for any.

        Raises:
            UsageError: if there is none; the message names those that exist.

        """
        wanted = ALIASES.get(name, name)
        if wanted in self.splits:
            return self.splits[wanted]
        if self.lone:
            return next(iter(self.splits.values()))
        raise UsageError(f"{self.root} has no split {name!r}; it has {', '.join(self.splits)}")

    def held_out(self) -> tuple[str, SplitSource]:
        """The split to evaluate on, with its name: val, or test where there is none, or a lone lot of images."""
        name = next((each for each in ("val", "test") if each in self.splits), "val")
        return name, self.split(name)

    def describe(self) -> str:
        """What was found, one line for each split."""
        lines = [f"{self.layout} at {self.root}"]
        lines += [f"  {name}: {_inside(self.root, each.annotations.path)}, images in {_inside(self.root, each.images)}"
                  for name, each in self.splits.items()]
        lines += [f"  left out: {each}" for each in self.left_out]
        return "\n".join(lines)


def find_data(path: Path) -> DataFolder:
    """Recognise the layout of a data set.

    Raises:
        UsageError: if the path does not exist or holds no layout that is known; the message says what was looked for.

    """
    path = Path(path)
    if path.is_file():
        return _yolo_file(path) if path.suffix.lower() in (".yaml", ".yml") else _single(path)
    if not path.is_dir():
        raise UsageError(f"no data at {path}: there is no such file or folder")
    for finder in FINDERS:
        found = finder(path)
        if found is not None:
            return found
    raise UsageError(f"no data set that is known in {path}; looked for\n  " + "\n  ".join(LOOKED_FOR))


def _coco(root: Path) -> DataFolder | None:
    """annotations/instances_{split}.json, images in a folder of the split's name or all in images/."""
    splits: dict[str, SplitSource] = {}
    left_out = []
    for file in sorted((root / "annotations").glob("instances_*.json"), reverse=True):  # 2017 before 2014
        name = file.stem.removeprefix("instances_")
        split = _split_name(name)
        images = _first_folder(root / name, root / "images" / name, root / "images", root / split)
        if split in splits:
            left_out.append(f"{file.name}: {splits[split].annotations.path.name} is the {split} split already")
        elif images is None:
            left_out.append(f"{file.name}: found none of the folders {name}, images/{name} and images")
        else:
            splits[split] = SplitSource(CocoFile(file, (root,)), images)
    if left_out and not splits:
        raise UsageError(f"annotations without images in {root}:\n  " + "\n  ".join(left_out))
    year = any(source.annotations.path.stem.endswith("2017") for source in splits.values())
    layout = "COCO 2017 layout" if year else "COCO layout"
    return DataFolder(root, layout, _in_order(splits), tuple(left_out)) if splits else None


def _roboflow(root: Path) -> DataFolder | None:
    """{split}/_annotations.coco.json among the split's images."""
    files = sorted(root.glob("*/_annotations.coco.json"))
    splits = {_split_name(file.parent.name): SplitSource(CocoFile(file, (root,)), file.parent) for file in files}
    return DataFolder(root, "Roboflow COCO layout", _in_order(splits)) if splits else None


def _yolo(root: Path) -> DataFolder | None:
    """data.yaml, which says where the images are."""
    files = [root / name for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")]
    return next((_yolo_file(file) for file in files if file.is_file()), None)


def _yolo_file(path: Path) -> DataFolder:
    found, left_out = yolo.read_splits(path)
    if not found:
        raise UsageError("; ".join([f"{path} names no images that are there", *left_out]))
    splits = {name: SplitSource(split, split.root) for name, split in found.items()}
    return DataFolder(path.parent, "YOLO layout", splits, tuple(left_out))


def _voc(root: Path) -> DataFolder | None:
    """Annotations/*.xml beside JPEGImages/, split by the lists in ImageSets/Main."""
    folder = root / "Annotations"
    if not any(folder.glob("*.xml")):
        return None
    images = _first_folder(root / "JPEGImages", root / "images") or folder
    lists = {file.stem: file for file in sorted((root / "ImageSets" / "Main").glob("*.txt"))
             if _names_images(file, folder)}
    left_out = []
    if "trainval" in lists:
        both = lists.pop("trainval")
        if lists.setdefault("train", both) is not both:
            left_out.append(f"{both.name}: {lists['train'].name} is the train split already")
    splits = {_split_name(name): SplitSource(VocSplit(folder, images, file), images) for name, file in lists.items()}
    lone = {"train": SplitSource(VocSplit(folder, images), images)}
    return DataFolder(root, "Pascal VOC layout", _in_order(splits or lone), tuple(left_out), lone=not splits)


def _voc_beside(root: Path) -> DataFolder | None:
    """XML files among the images, in a folder for each split or all in one."""
    folders = [each for each in sorted(root.iterdir()) if each.is_dir() and any(each.glob("*.xml"))]
    lone = any(root.glob("*.xml"))
    folders = [root] if lone else folders
    splits = {"train" if lone else _split_name(each.name): SplitSource(VocSplit(each, each, among=tuple(folders)), each)
              for each in folders}
    return DataFolder(root, "Pascal VOC layout", _in_order(splits), lone=lone) if splits else None


def _shards(root: Path) -> DataFolder | None:
    """{split}-*.tar beside categories.json."""
    names = sorted({file.stem.rsplit("-", 1)[0] for file in root.glob("*-*.tar")})
    if names and not (root / CATEGORIES).is_file():
        raise UsageError(f"{root} has tar files but no {CATEGORIES}, which lists the categories of shards as "
                         f'[{{"id": 1, "name": "cell"}}, ...]; their writer leaves it out until all are whole')
    splits = {_split_name(name): SplitSource(ShardSplit(root, name), root) for name in names}
    return DataFolder(root, "shards", _in_order(splits)) if splits else None


FINDERS: tuple[Callable[[Path], DataFolder | None], ...] = (_coco, _roboflow, _yolo, _voc, _voc_beside, _shards)


def _single(path: Path) -> DataFolder:
    """A COCO annotation file and the images beside it."""
    if path.suffix.lower() != ".json":
        raise UsageError(f"{path} is no annotation file: expected COCO annotations (.json), YOLO's data.yaml, "
                         f"or a folder")
    stem = path.stem.removeprefix("instances_")
    here, above = path.parent, path.parent.parent
    named = [folder / name for folder in (here, above) for name in (stem, _split_name(stem))]
    shared = [here / "images", above / "images"]
    inner = [folder / name for folder in shared for name in (stem, _split_name(stem))]
    images = _first_folder(*inner, *named, *shared) or here
    splits = {_split_name(path.stem): SplitSource(CocoFile(path), images)}
    return DataFolder(path, "COCO annotation file", splits, lone=True)


def _names_images(file: Path, folder: Path) -> bool:
    """Whether a list names XML files of a folder only; those of single classes have a column of -1, 0 and 1 too."""
    names = [line.strip() for line in file.read_text("utf-8-sig", errors="replace").splitlines() if line.strip()]
    of_class = all(re.fullmatch(r"\S+\s+(-1|0|1)", name) for name in names)
    return not names or not of_class or any((folder / f"{name}.xml").is_file() for name in names)


def _split_name(name: str) -> str:
    """train2017 -> train, valid -> val, instances_val -> val; other names stay."""
    bare = re.sub(r"[-_]?\d{4}$", "", name.removeprefix("instances_").lower())
    bare = ALIASES.get(bare, bare)
    return bare if bare in ("train", "val", "test") else name


def _in_order(splits: Mapping[str, SplitSource]) -> dict[str, SplitSource]:
    """train, val, test, then the rest."""
    usual = ("train", "val", "test")
    return {name: splits[name] for name in sorted(splits, key=lambda name: (name not in usual, *_rank(usual, name)))}


def _rank(usual: tuple[str, ...], name: str) -> tuple[int, str]:
    return (usual.index(name) if name in usual else 0, name)


def _first_folder(*candidates: Path) -> Path | None:
    return next((folder for folder in candidates if folder.is_dir()), None)


def _inside(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else str(path)
