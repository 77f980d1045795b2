"""Where a printed figure is not our count: what can be shown about it. Sections of docs/models.md."""

from __future__ import annotations

from collections.abc import Iterator

from winnow import models
from winnow.evaluation.costs import shapes_only
from winnow.evaluation.flops import Flops, count_parameters
from winnow.evaluation.published import LARGE, LI_DEFORMABLE, ROWS, SHARES, SMALL, Row, main_row

from .counting import first_images, flops, markdown, mean_giga

H1 = {"block": 2, "fine": 3}              # only the coarsest level is coarse
NARROW = {"size": {"feedforward": 1024}}

SPARSE = """\
## Why the published saving of Sparse DETR looks larger than it is

Its table mixes two input sizes. The dense rows (172.9 and 177.3 with ResNet-50, 180.4 and 184.8 with Swin-T) are what
the rules give for an image of **850x1040**. The sparse rows are what they give for **800x1066**, and **without** the
auxiliary heads of the encoder, which the reference implementation runs at inference too:

{table}
Where 800x1066 comes from: the release counts the first 100 images of COCO val2017, and returns the last one's count.
{last}

Like for like, against the dense model with the same queries (`efficient-detr-r50`: {dense_small:.1f} at 800x1066,
{dense_large:.1f} at 850x1040), keeping 10 % of the tokens takes {ratio_small:.1f} % of the multiply-adds at 800x1066
and {ratio_large:.1f} % at 850x1040. The published figures 105.4 and 177.3 would make it {ratio_published:.1f} %.

Winnow runs no auxiliary head at inference, so the column without them is the one to compare it with.
"""


def sparse() -> str:
    """Two sizes in one table."""
    def giga(share: int, size: tuple[int, int], heads: bool) -> float:
        return flops(f"sparse-detr-r50-rho{share}", size, encoder_heads=heads).giga

    rows = []
    for share in SHARES:
        printed = _printed(f"sparse-detr-r50-rho{share}")
        counts = [giga(share, size, heads) for size in (SMALL, LARGE) for heads in (False, True)]
        rows.append([f"{share} %", str(printed.gflops), *(f"{each:.1f}" for each in counts)])
    dense_small, dense_large = (flops("efficient-detr-r50", size).giga for size in (SMALL, LARGE))
    images = first_images()
    last = "The 100th, with id 9891, is a photo of 640x480, which becomes {}x{}.".format(*images[-1]) if images else \
        "Which size the 100th has could not be looked up when this page was written."
    return SPARSE.format(
        table=markdown(["ResNet-50, keep", "published", "800x1066", "with auxiliary heads", "850x1040",
                        "with auxiliary heads"], rows),
        last=last, dense_small=dense_small, dense_large=dense_large,
        ratio_small=100 * giga(10, SMALL, False) / dense_small, ratio_large=100 * giga(10, LARGE, False) / dense_large,
        ratio_published=100 * 105.4 / 177.3)


LITE_DINO = """\
## Lite DETR's tables: another counter, the smaller image

**DINO's rows** (235, its encoder 137; with Swin-T 243) come out at 800x1066 with every token proposing a box, as in
DINO's release, and with sampling not counted: deformable attention runs in a kernel of its own there, which the counter
does not see. Both columns agree with that and with nothing else that we tried:

{dino}
**Lite-DINO's rows** lie within 1 % of the count at 800x1066 with key-aware attention; plain attention is further off.
One factor for all rows ({factor:.4f}, which makes 235 of DINO at 850x1040) fits two rows with ResNet-50 better, and the
others worse. The totals tell that H2L2 keeps two levels coarse: with one (H1L3), as the release's own instructions have
it, it would cost {one_level:.1f}.

{lite}
At 800x1066 the H2L2 rows agree, and the H3L1 rows are 1 % too high with either backbone; we did not find what is left
out. The encoder's column fits no count of ours: by it everything but the encoder would cost 98, 100 and 100 in the
three rows, though it is the same network.
"""


def lite_dino() -> str:
    """DINO's rows are explained, Lite-DINO's nearly."""
    columns = ["", "R50", "its encoder", "Swin-T", "its encoder"]
    rows = [["**published**", "**235**", "**137**", "**243**", "**137**"]]
    for words, size, rules in (("850x1040, sampling counted", LARGE, "family"),
                               ("800x1066, sampling counted", SMALL, "family"),
                               ("850x1040, sampling not counted", LARGE, "unseen sampling"),
                               ("**800x1066, sampling not counted**", SMALL, "unseen sampling")):
        counts = [flops(name, size, rules) for name in ("dino-r50", "dino-swint")]
        rows.append([words, *(f"{each:.1f}" for count in counts for each in (count.giga, _encoder(count)))])
    factor = 235 / flops("dino-r50", LARGE).giga
    schedules = {"H3L1-(2+1)x3": "", "H3L1-(6+1)x1": "-h3l1-6x1", "H2L2-(2+1)x3": "-h2l2-2x3"}
    lines = []
    for label, suffix in schedules.items():
        for backbone in ("r50", "swint"):
            name = f"lite-dino-{backbone}{suffix}"
            printed, small, large = _printed(name), flops(name, SMALL), flops(name, LARGE)
            plain = flops(name, SMALL, changes={"attention": "deformable"})
            lines.append([f"{backbone}, {label}", str(printed.gflops), f"{small.giga:.1f}", f"{plain.giga:.1f}",
                          f"{large.giga * factor:.1f}", str(printed.encoder), f"{_encoder(small):.1f}"])
    one = flops("lite-dino-r50", SMALL, changes={"lite": H1}).giga
    return LITE_DINO.format(
        dino=markdown(columns, rows), factor=factor, one_level=one,
        lite=markdown(["", "published", "800x1066", "with plain attention", f"850x1040 x {factor:.4f}",
                       "encoder published", "encoder 800x1066"], lines))


LITE_DEFORMABLE = """\
## Lite-Deformable DETR

The dense row (177, its encoder 90) is the count at 850x1040: {dense:.1f}, and {encoder:.1f} for the encoder with the
projections before it ({alone:.1f} without). The Lite rows were counted otherwise. There is no public code of them. Fine
tokens think with an eighth of the feed-forward width here, as the paper says (`Lite.inner`: 128; DINO's 256 is its
eighth). At 800x1066:

{table}
So three of the four totals would be reproduced if the projections of the neck ({neck:.2f}) were left out, and two of
the four encoders are. H2L2 is printed lower than two coarse levels cost; with one (H1L3) the same reckoning gives
{one:.1f} and an encoder of {one_encoder:.1f}. We can't say which of this is so; the rows are not explained.
"""


def lite_deformable() -> str:
    """What is near to the printed figures, and that nothing hits them all."""
    stem = "lite-deformable-detr-r50"
    rows = []
    for row in ROWS:
        if row.table == LI_DEFORMABLE and row.label.startswith("Lite"):
            count = flops(row.models[0], SMALL)
            rows.append([row.label, str(row.gflops), f"{count.giga:.1f}", f"{count.giga - _neck(count):.1f}",
                         str(row.encoder), f"{_encoder(count):.1f}"])
    dense, one = flops("deformable-detr-two-stage-r50", LARGE), flops(stem, SMALL, changes={"lite": H1})
    return LITE_DEFORMABLE.format(
        dense=dense.giga, encoder=_encoder(dense) + _neck(dense), alone=_encoder(dense),
        neck=_neck(one), one=one.giga - _neck(one), one_encoder=_encoder(one),
        table=markdown(["", "published", "ours", "without projections", "encoder published", "ours"], rows))


AGAIN = """\
## Sparse DETR as Lite DETR's authors counted it

{table}
The last row is the count at 850x1040, and the others are about 1.4 more than that. 1.4 is what the auxiliary heads cost
at 10 %; at the other shares they would cost more. Not explained.
"""


def sparse_again() -> str:
    """Another count of the same models."""
    rows = []
    for row in ROWS:
        if row.table == LI_DEFORMABLE and row.label.startswith("Sparse"):
            count, heads = (flops(row.models[0], LARGE, encoder_heads=each) for each in (False, True))
            rows.append([row.label, str(row.gflops), f"{count.giga:.1f}", f"{heads.giga:.1f}", str(row.encoder),
                         f"{_encoder(count):.1f}", f"{_encoder(count) + _neck(count):.1f}"])
    return AGAIN.format(table=markdown(["", "published", "850x1040", "with auxiliary heads", "encoder published",
                                        "encoder", "with projections"], rows))


DINO = """\
## DINO's own figures: 279 and 860

DINO's release has a counter of its own. Neither the family's rules nor element-wise ones come to its figures at a size
that we know of, nor do both models ask for the same size:

{table}
Not explained. Lite DETR's authors print 235 for the same network, which is (see above).
"""


def dino() -> str:
    """A counter that we don't know."""
    rows = []
    for name in ("dino-r50", "dino-5scale-r50"):
        rows += [[f"`{name}`", rules, str(_printed(name).gflops),
                  *(f"{flops(name, size, rules).giga:.1f}" for size in (SMALL, LARGE, (800, 1333)))]
                 for rules in ("family", "element-wise")]
    return DINO.format(table=markdown(["", "rules", "published", "800x1066", "850x1040", "800x1333"], rows, first=2))


ZHU = """\
## Deformable DETR's release

It prints 173 for all of its three models with four levels. At 850x1040 the plain one is {plain:.1f}, refined boxes
add {refine:.2f}, and two stages {two_stage:.1f} more. On a single scale it prints 78 and 128 (DC5), where the rules
give {single:.1f} and {dc5:.1f} at 850x1040, {single_small:.1f} and {dc5_small:.1f} at 800x1066: both are 2 % below the
count at 850x1040, not explained.
"""


def zhu() -> str:
    """One figure for three models, and two that are lower."""
    stem = "deformable-detr"
    plain, refined, staged, single, dc5 = (flops(f"{stem}{kind}-r50", LARGE).giga for kind in
                                           ("", "-refine", "-two-stage", "-single-scale", "-dc5"))
    single_small, dc5_small = (flops(f"{stem}-{kind}-r50", SMALL).giga for kind in ("single-scale", "dc5"))
    return ZHU.format(plain=plain, refine=refined - plain, two_stage=staged - refined, single=single, dc5=dc5,
                      single_small=single_small, dc5_small=dc5_small)


DENSE = """\
## DETR, PnP-DETR and Faster R-CNN

The figures of DETR and DETR-DC5 are means over the first 100 images of COCO val2017 by rules that charge element-wise
work; 850x1040 stands in for them. Faster R-CNN's 180 lies below multiply-adds alone, here counted after padding to a
multiple of 32 and with all 1,000 proposals; how it was counted is not known. PnP-DETR's cells are empty in the tables.

{table}
**DETR with Swin-T** (45.0 million, 91.6) is DETR with its feed-forward width of 2048: {params:.2f} million, and
{small:.2f} by the family's rules at 800x1066, so that this dense row was counted at the size of the sparse ones. A
width of 1024 at 850x1040 would give {narrow:.2f} too, but {narrow_params:.2f} million.
"""


def dense() -> str:
    """Means of many images beside one."""
    images = first_images()
    rows = []
    for name, rules in (("detr-r50", "products"), ("detr-r50", "element-wise"), ("detr-dc5-r50", "products"),
                        ("detr-dc5-r50", "element-wise"), ("pnp-detr-r50-rho33", "products"),
                        ("faster-rcnn-fpn-r50", "products")):
        mean = f"{mean_giga(name, rules, images):.1f}" if images else "-"
        rows.append([f"`{name}`", rules, str(_printed(name).gflops or "-"), f"{flops(name, LARGE, rules).giga:.1f}",
                     mean])
    wide, narrow = ({**models.find("detr-swint").settings, **change} for change in ({}, NARROW))
    params, narrow_params = (count_parameters(shapes_only("detr", each)).published / 1e6 for each in (wide, narrow))
    return DENSE.format(
        table=markdown(["", "rules", "published", "850x1040", "mean of 100 images"], rows, first=2), params=params,
        small=flops("detr-swint", SMALL).giga, narrow=flops("detr-swint", LARGE, changes=NARROW).giga,
        narrow_params=narrow_params)


PARAMETERS = """\
## Parameters

All agree with what is printed, torchvision's with the frozen ones added. In Lite DETR's tables decimals seem to be cut
off: 40.96 is printed as 40, 41.55 as 41, 47.92 as 47. SCRL changes where a backbone starts, not what it is; which of
its two published files the rows used is not said.
"""


def sections() -> Iterator[str]:
    """All of them."""
    for section in (sparse, lite_dino, lite_deformable, sparse_again, dino, zhu, dense):
        yield section()
    yield PARAMETERS


def _printed(name: str) -> Row:
    row = main_row(name)
    if row is None:
        raise ValueError(f"{name} is in no table")
    return row


def _encoder(count: Flops) -> float:
    return count.by_stage["encoder"] / 1e9


def _neck(count: Flops) -> float:
    return count.by_stage["neck"] / 1e9
