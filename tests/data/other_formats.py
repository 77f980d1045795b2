"""The same annotations as other programs write them: COCO to YOLO and to Pascal VOC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

Split = tuple[str, Path, Path]  # name, COCO file, folder of its images


def as_yolo(root: Path, *splits: Split) -> Path:
    """images/{split}, labels/{split} and data.yaml; classes in the order of the first file's categories."""
    names = [category["name"] for category in json.loads(splits[0][1].read_text())["categories"]]
    for split, file, images in splits:
        for image, boxes in _by_image(file):
            _link(images / image["file_name"], root / "images" / split / image["file_name"])
            lines = [f"{names.index(name)} {(x + w / 2) / image['width']:.7f} {(y + h / 2) / image['height']:.7f} "
                     f"{w / image['width']:.7f} {h / image['height']:.7f}" for name, (x, y, w, h) in boxes]
            write(root / "labels" / split / f"{Path(image['file_name']).stem}.txt", *lines)
    return write(root / "data.yaml", "path: .", *(f"{split}: images/{split}" for split, _, _ in splits),
                 f"nc: {len(names)}", "names:", *(f"  {number}: {name}" for number, name in enumerate(names)))


def as_voc(root: Path, *splits: Split) -> Path:
    """Annotations/, JPEGImages/ and ImageSets/Main/{split}.txt."""
    for split, file, images in splits:
        stems = []
        for image, boxes in _by_image(file):
            stems.append(Path(image["file_name"]).stem)
            _link(images / image["file_name"], root / "JPEGImages" / image["file_name"])
            write(root / "Annotations" / f"{stems[-1]}.xml",
                  voc(image["file_name"], image["width"], image["height"],
                      *(thing(name, x, y, x + w, y + h) for name, (x, y, w, h) in boxes)))
        write(root / "ImageSets" / "Main" / f"{split}.txt", *stems)
    return root


def voc(name: str, width: int, height: int, *objects: str, more: str = "") -> str:
    """The XML of an image."""
    return (f"<annotation><filename>{escape(name)}</filename>{more}<size><width>{width}</width>"
            f"<height>{height}</height><depth>3</depth></size>\n" + "\n".join(objects) + "\n</annotation>")


def thing(name: str, left: float, top: float, right: float, bottom: float, more: str = "") -> str:
    """The XML of an object."""
    return (f"<object><name>{escape(name)}</name>{more}<bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>")


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _by_image(file: Path) -> Iterator[tuple[dict[str, Any], list[tuple[str, list[float]]]]]:
    content = json.loads(file.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    for image in content["images"]:
        yield image, [(names[box["category_id"]], box["bbox"]) for box in content["annotations"]
                      if box["image_id"] == image["id"]]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source)
