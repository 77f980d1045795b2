"""Draws the pictures of docs/*.md from the demo: docs/pictures/*.jpg, and where they come from.

    python -m evidence.pages                    # trains the demo first, five minutes on two cores
    python -m evidence.pages --run runs/demo    # from a demo that is already there
"""

from __future__ import annotations

import argparse
import platform
from datetime import date
from pathlib import Path

from matplotlib.figure import Figure

from winnow.demo import run_demo
from winnow.explain import Look, figures, look
from winnow.inference.drawing import draw
from winnow.inference.predictor import Predictor, load
from winnow.progress import console
from winnow.training.run import RunFolder

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
OBJECTS = 4       # at least, on the picture that is shown
LARGE = 3         # times as large as it is, so that lines are thin
QUALITY = 88
VIEWS = {"score-map": figures.score_map, "kept-tokens": figures.kept_tokens, "attention": figures.attention,
         "sampling-points": figures.sampling_points, "layer-boxes": figures.layer_boxes}


def main() -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a demo that is already there")
    run = parser.parse_args().run or run_demo(Path("runs/demo"))
    detector = load(run, "cpu")
    name, seen = chosen(detector, run)
    FOLDER.mkdir(parents=True, exist_ok=True)
    large = seen.image.resize([side * LARGE for side in seen.image.size])
    draw(large, detector.predict(large)).save(FOLDER / "detections.jpg", quality=QUALITY)
    for title, view in VIEWS.items():
        save(view(seen), FOLDER / f"{title}.jpg")
    (FOLDER / "README.md").write_text(about(run, name), encoding="utf-8")
    console.print(f"pictures of {name} are in {FOLDER}", markup=False)


def chosen(detector: Predictor, run: Path) -> tuple[str, Look]:
    """The held-out picture that is shown: of those with several objects, the surest of its least sure detection."""
    paths = sorted((run / "data" / "images").glob("val_*.jpg"))
    found = [(path, each) for path, each in zip(paths, detector.predict(paths), strict=True) if len(each) >= OBJECTS]
    if not found:
        raise SystemExit(f"{run} finds {OBJECTS} objects on none of its held-out pictures; train the demo again")
    path, _ = max(found, key=lambda pair: pair[1].confidence.min())
    return path.name, look(detector, path)


def save(figure: Figure, path: Path) -> None:
    """A figure as JPEG, a quarter smaller than it is drawn."""
    figure.savefig(path, dpi=figure.dpi * 0.75, pil_kwargs={"quality": QUALITY})


def about(run: Path, name: str) -> str:
    """Where the pictures come from."""
    folder = RunFolder(run)
    best = max((row for row in folder.history() if row.get("AP") is not None), key=lambda row: row["AP"])
    return (f"# Pictures of the pages\n\nDrawn by `python -m evidence.pages` on {date.today()} ({platform.machine()}, "
            f"{platform.system()}) from the demo: `winnow demo`, seed {folder.config().recipe.seed}, "
            f"AP50 {best['AP50']:.3f} and AP {best['AP']:.3f} on its held-out pictures.\nThis is `{name}`: of those "
            f"with {OBJECTS} or more objects found, the one whose least sure detection is surest.\n")


if __name__ == "__main__":
    main()
