"""What the papers print: every row of their tables, and how its figure for multiply-adds comes about.

A row names the models here that are that row; a model may be in several tables, and the first row that names it is its
main one. The remark says in what a row differs from its neighbours, or from our count; docs/models.md explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .flops import DETR, PRODUCTS, SPARSE_DETR, UNSEEN, Rules


@dataclass(frozen=True)
class Counting:
    """By which rules, and on an image of which (height, width), our count comes closest to the printed one."""

    rules: Rules
    name: str  # of the rules, as docs/models.md explains them
    size: tuple[int, int]

    def __str__(self) -> str:
        return "{}, {}x{}".format(self.name, *self.size)


@dataclass(frozen=True)
class Row:
    """One row of a table, to the digits printed there; None where a cell is empty or was not at hand.

    models   ours that are this row, none where Winnow does not have it
    params   millions that learn, heads of the encoder left out
    gflops   10^9 multiply-adds
    encoder  the encoder's part of them
    """

    table: str
    label: str
    models: tuple[str, ...]
    epochs: int | None
    ap: float | None
    ap50: float | None = None
    params: float | None = None
    gflops: float | None = None
    encoder: float | None = None
    counting: Counting | None = None
    remark: str = ""


SMALL, LARGE = (800, 1066), (850, 1040)
SPARSE = Counting(SPARSE_DETR, "family", SMALL)
DENSE = Counting(SPARSE_DETR, "family", LARGE)
ELEMENTS = Counting(DETR, "element-wise", LARGE)
BARE = Counting(PRODUCTS, "products", LARGE)
SUPPOSED = Counting(UNSEEN, "unseen sampling", SMALL)

ZHU = "Deformable DETR (Zhu et al., 2021), figures of its release"
ROH = "Sparse DETR (Roh et al., 2022), table 1"
ZHANG = "DINO (Zhang et al., 2023), figures of its release"
LI_DINO = "Lite DETR (Li et al., 2023), tables of DINO and H-DETR"
LI_DEFORMABLE = "Lite DETR (Li et al., 2023), table of Deformable DETR"
TORCHVISION = "torchvision, figures of its weights"

SHARES = (10, 20, 30, 40, 50)


def _zhu() -> Iterator[Row]:
    def row(label: str, model: str, ap: float, params: float, gflops: float, remark: str = "") -> Row:
        return Row(ZHU, label, (model,), 50, ap, None, params, gflops, None, DENSE, remark)

    unknown = "2 % below our count, not explained"
    yield row("Deformable DETR, single scale", "deformable-detr-single-scale-r50", 39.4, 34, 78, unknown)
    yield row("Deformable DETR, single scale, DC5", "deformable-detr-dc5-r50", 41.5, 34, 128, unknown)
    yield row("Deformable DETR", "deformable-detr-r50", 44.5, 40, 173)
    yield row("+ iterative refinement", "deformable-detr-refine-r50", 46.2, 41, 173)
    yield row("++ two-stage", "deformable-detr-two-stage-r50", 46.9, 41, 173,
              "the plain model's figure; refinement and two stages add 4.4")


def _roh() -> Iterator[Row]:
    def row(label: str, models: Sequence[str], epochs: int, ap: float, params: float | None = None,
            gflops: float | None = None, counting: Counting = DENSE, remark: str = "",
            ap50: float | None = None) -> Row:
        return Row(ROH, label, tuple(models), epochs, ap, ap50, params, gflops, None, counting, remark)

    yield row("Faster R-CNN + FPN", ["faster-rcnn-fpn-r50"], 109, 42.0, 42, 180, BARE,
              "counted with padding and all 1,000 proposals; no weights of this training were published")
    yield row("DETR", ["detr-r50"], 500, 42.0, 41, 86, ELEMENTS, ap50=62.4)
    yield row("DETR", ["detr-r50"], 50, 35.0, 41, 86, ELEMENTS)
    yield row("DETR-DC5", ["detr-dc5-r50"], 500, 43.3, 41, 187, ELEMENTS, ap50=63.1)
    for kind, suffix, aps in (("PnP-DETR", "", (41.1, 41.8)), ("PnP-DETR-DC5", "-dc5", (42.7, 43.1))):
        stem = f"pnp-detr{suffix}-r50"
        yield row(f"{kind}, 33 %", [f"{stem}-rho33", stem], 500, aps[0], counting=BARE)
        yield row(f"{kind}, 50 %", [f"{stem}-rho50"], 500, aps[1], counting=BARE)
    yield row("Deformable DETR, trained again", ["deformable-detr-r50"], 50, 43.9, 39.8, 172.9)
    yield row("+ top-k & BBR", ["efficient-detr-r50"], 50, 46.0, 40.8, 177.3)
    r50 = ((45.3, 105.4), (45.6, 112.9), (46.0, 120.5), (46.2, 128.0), (46.3, 135.6))
    for share, (ap, gflops) in zip(SHARES, r50, strict=True):
        yield row(f"Sparse DETR, {share} %", _shares("sparse-detr-r50", share), 50, ap, 40.9, gflops, SPARSE)
    for share, ap in zip(SHARES, (46.9, 47.2, 47.4, 47.7, 47.9), strict=True):
        yield row(f"Sparse DETR, {share} %, SCRL", [f"sparse-detr-scrl-r50-rho{share}"], 50, ap, counting=SPARSE)
    yield row("Swin-T: DETR", ["detr-swint"], 500, 45.4, 45.0, 91.6, SPARSE, "a dense row at the smaller size")
    yield row("Swin-T: DETR", ["detr-swint"], 50, 35.9, 45.0, 91.6, SPARSE, "a dense row at the smaller size")
    yield row("Swin-T: Deformable DETR", ["deformable-detr-swint"], 50, 45.7, 40.3, 180.4)
    yield row("Swin-T: + top-k & BBR", ["efficient-detr-swint"], 50, 48.0, 41.3, 184.8)
    swin = ((48.2, 113.4), (48.8, 121.0), (49.1, 128.5), (49.2, 136.1), (49.3, 143.7))
    for share, (ap, gflops) in zip(SHARES, swin, strict=True):
        yield row(f"Swin-T: Sparse DETR, {share} %", _shares("sparse-detr-swint", share), 50, ap, 41.4, gflops, SPARSE)


def _quoted() -> Iterator[Row]:
    """A row that is not the main one of its model, so it comes later than its table."""
    yield Row(ZHU, "DETR-DC5, as quoted", ("detr-dc5-r50",), 50, 35.3, None, 41, 187, None, ELEMENTS)


def _shares(stem: str, share: int) -> list[str]:
    """The models of one share; the name without one is that of the first."""
    return [f"{stem}-rho{share}", *([stem] if share == SHARES[0] else [])]


def _zhang() -> Iterator[Row]:
    own = "a counter of their own, not explained"
    for label, model, gflops, results in (
            ("DINO, 4 scales", "dino-r50", 279, ((12, 49.0, 66.6), (24, 50.4, 68.3), (36, 50.9, 69.0))),
            ("DINO, 5 scales", "dino-5scale-r50", 860, ((12, 49.4, 66.9), (24, 51.3, 69.1), (36, 51.2, 69.0)))):
        (epochs, ap, ap50), *longer = results
        yield Row(ZHANG, label, (model,), epochs, ap, ap50, 47, gflops, None, DENSE, own)
        for epochs, ap, ap50 in longer:
            yield Row(ZHANG, label, (model,), epochs, ap, ap50, counting=DENSE)
    for scales, epochs, ap in ((4, 12, 56.8), (4, 36, 58.0), (5, 12, 57.3), (5, 36, 58.5)):
        yield Row(ZHANG, f"Swin-L: DINO, {scales} scales", (), epochs, ap, remark="Winnow has no name for Swin-L")


def _li_dino() -> Iterator[Row]:
    def row(label: str, models: Sequence[str], ap: float, ap50: float, gflops: float, encoder: float,
            remark: str = "", counting: Counting | None = SPARSE) -> Row:
        return Row(LI_DINO, label, tuple(models), 36, ap, ap50, 47, gflops, encoder, counting, remark)

    absent = "Winnow has no H-DETR"
    coarse, single, blocks = "H2L2-(2+1)x3", "H3L1-(6+1)x1", "H3L1-(2+1)x3"
    near = "within 1 %, the rest not explained"
    part = "the encoder's part is not explained"
    yield row("DINO", ["dino-r50"], 50.7, 68.6, 235, 137, counting=SUPPOSED)
    yield row(f"Lite-DINO {coarse}", ["lite-dino-r50-h2l2-2x3"], 49.9, 68.2, 130, 30, part)
    yield row(f"Lite-DINO {single}", ["lite-dino-r50-h3l1-6x1"], 50.2, 68.6, 141, 41, near)
    yield row(f"Lite-DINO {blocks}", ["lite-dino-r50"], 50.4, 68.5, 151, 53, near)
    yield row("H-DETR", [], 50.0, 68.3, 226, 137, absent, None)
    yield row(f"Lite-H-DETR {blocks}", [], 49.5, 67.6, 142, 53, absent, None)
    yield row("Swin-T: DINO", ["dino-swint"], 54.1, 72.0, 243, 137, counting=SUPPOSED)
    yield row(f"Swin-T: Lite-DINO {coarse}", ["lite-dino-swint-h2l2-2x3"], 53.1, 71.4, 138, 30, part)
    yield row(f"Swin-T: Lite-DINO {single}", ["lite-dino-swint-h3l1-6x1"], 53.3, 71.7, 149, 41, near)
    yield row(f"Swin-T: Lite-DINO {blocks}", ["lite-dino-swint"], 53.9, 72.0, 159, 53, near)
    yield row("Swin-T: H-DETR", [], 53.2, 71.5, 234, 137, absent, None)
    yield row(f"Swin-T: Lite-H-DETR {coarse}", [], 52.3, 70.7, 131, 30, absent, None)
    yield row(f"Swin-T: Lite-H-DETR {single}", [], 52.7, 71.5, 142, 41, absent, None)
    yield row(f"Swin-T: Lite-H-DETR {blocks}", [], 53.0, 71.3, 152, 53, absent, None)


def _li_deformable() -> Iterator[Row]:
    def row(label: str, models: Sequence[str], ap: float, ap50: float, gflops: float, encoder: float,
            remark: str = "", counting: Counting = SPARSE, params: float = 41) -> Row:
        return Row(LI_DEFORMABLE, label, tuple(models), 50, ap, ap50, params, gflops, encoder, counting, remark)

    less = "about 4 below our count, not explained"
    yield row("Deformable DETR, two-stage", ["deformable-detr-two-stage-r50"], 46.8, 66.0, 177, 90,
              "the encoder's part includes the projections before it", DENSE, 40)
    lite = "lite-deformable-detr-r50"
    yield row("Lite H2L2-(2+1)x3", [f"{lite}-h2l2-2x3"], 45.8, 65.1, 108, 23, "7 below our count, not explained")
    yield row("Lite H3L1-(6+1)x1", [f"{lite}-h3l1-6x1"], 45.9, 65.6, 115, 30, less)
    yield row("Lite H3L1-(3+1)x2", [f"{lite}-h3l1-3x2"], 46.2, 65.5, 119, 35, less)
    yield row("Lite H3L1-(2+1)x3", [lite], 46.7, 66.1, 123, 39, less)
    original = "its authors' own, which Winnow does not have; efficient-detr-r50 is Roh et al.'s"
    yield replace(row("Efficient DETR", [], 44.2, 62.2, 159, 79, original, params=32), epochs=None, counting=None)
    again = "counted again by Li et al., not explained"
    for share, ap, ap50, gflops, encoder in ((10, 45.3, 65.8, 111, 24), (20, 45.6, 65.8, 119, 32),
                                             (30, 46.0, 65.9, 127, 40), (50, 46.3, 66.0, 141, 54)):
        yield row(f"Sparse DETR, {share} %", _shares("sparse-detr-r50", share), ap, ap50, gflops, encoder, again, DENSE)


def _torchvision() -> Iterator[Row]:
    yield Row(TORCHVISION, "Faster R-CNN + FPN", ("faster-rcnn-fpn-r50",), 26, 37.0, None, 41.8, 134.38, None,
              replace(BARE, size=(800, 800)), "parameters with the frozen ones")


ROWS: tuple[Row, ...] = (*_zhu(), *_roh(), *_quoted(), *_zhang(), *_li_dino(), *_li_deformable(), *_torchvision())


def rows_of(model: str) -> list[Row]:
    """Every row that is this model, its main one first."""
    return [row for row in ROWS if model in row.models]


def main_row(model: str) -> Row | None:
    """The row whose figures stand for a model; None where nobody has published any."""
    return next(iter(rows_of(model)), None)


def main_figures(model: str) -> dict[str, Any]:
    """AP, millions of parameters and 10^9 multiply-adds of the main row, None where a paper prints nothing."""
    row = main_row(model)
    return {key: getattr(row, key, None) for key in ("ap", "params", "gflops")}


def agrees(printed: float, ours: float) -> bool:
    """Whether ours is what is printed, to the digits printed there."""
    digits = str(printed).partition(".")[2]
    return round(ours, len(digits)) == printed
