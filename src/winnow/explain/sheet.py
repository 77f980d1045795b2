"""Everything about an image's tokens on one sheet: what `predict --show-tokens` writes and a run's page shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import supervision as sv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from ..inference.drawing import draw, scaled
from ..progress import counted
from .panels import Panel, attention_at, depth_at, heat, lit, panel_image, scores_at, sheet, tiles
from .tokens import Level, attention_on_kept, percent


def token_figure(image: Image.Image, detections: sv.Detections, levels: Sequence[Level]) -> Image.Image:
    """Detections and all levels combined above; below, the kept tokens and the scores of each level.

    Raises UsageError for a dense model, which keeps every token.
    """
    base = panel_image(image)
    kept, total = sum(int(level.kept.sum()) for level in levels), sum(level.kept.size for level in levels)
    scores = [scores_at(level, base.size) for level in levels]
    above = [
        Panel("Detections", counted(len(detections), "object"),
              draw(base, scaled(detections, base.width / image.width))),
        Panel("Token scores", "mean of the levels, each on its own scale", heat(base, np.mean(scores, axis=0))),
        Panel("Kept tokens", f"{kept} of {total}; brighter on more levels", lit(base, depth_at(levels, base.size))),
    ]
    share = attention_on_kept(levels)
    if share is not None:
        above.append(Panel("Decoder attention", f"{share:.0%} of it on kept tokens",
                           heat(base, attention_at(levels, base.size))))
    below = [Panel(f"Kept, stride {level.stride}", level.kept_share, tiles(base, level.kept)) for level in levels]
    scored = [Panel(f"Scores, stride {level.stride}",
                    f"{level.ranking.min():.1f} (dark) to {level.ranking.max():.1f} (bright)", heat(base, score))
              for level, score in zip(levels, scores, strict=True)]
    figure, _ = sheet(f"{percent(kept / total)} of the tokens did the encoder's work", [above, below, scored],
                      base.size)
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
