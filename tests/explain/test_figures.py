from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from winnow import explain
from winnow.errors import UsageError

PICTURE = Image.effect_noise((120, 80), 60).convert("RGB")


def pixels(figure: Figure) -> np.ndarray:
    data = BytesIO()
    figure.savefig(data)
    return np.asarray(Image.open(data).convert("RGB"))


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("name", ["score_map", "kept_tokens", "attention", "sampling_points", "layer_boxes"])
def test_every_view_is_a_figure_that_shows_something_and_does_not_show_itself(sparse, name):
    figure = getattr(explain, name)(sparse, PICTURE, threshold=0)
    assert isinstance(figure, Figure) and pixels(figure).std() > 10
    assert not pyplot.get_fignums()


def test_figures_tell_their_numbers(sparse):
    look = explain.look(sparse, PICTURE, threshold=0)
    found = explain.agreement(look.levels)
    said = " ".join(words(explain.figures.attention(look)))
    assert f"{found.rank_correlation:.2f}" in said and f"{found.attention:.0%}" in said
    assert {level.kept_share for level in look.levels} <= set(words(explain.figures.kept_tokens(look)))


def test_rho_changes_what_is_kept(sparse):
    few, many = (explain.kept_tokens(sparse, PICTURE, rho=rho) for rho in (0.05, 0.9))
    assert words(few)[0] != words(many)[0]


def test_points_of_a_detection_lie_on_the_part_that_is_shown(sparse):
    look = explain.look(sparse, PICTURE, threshold=0)
    figure = explain.figures.sampling_points(look, 1)
    (axes,) = figure.axes
    marks = np.concatenate([each.get_offsets() for each in axes.collections])
    (left, right), (low, high) = axes.get_xlim(), sorted(axes.get_ylim())
    inside = ((marks > [left, low]) & (marks < [right, high])).all(1)
    assert len(marks) and inside.mean() > 0.5
    assert "#" not in words(figure)[0] and words(figure)[1] == "Layer 1"


def test_the_last_layer_of_a_decoder_agrees_with_itself(sparse, detr):
    for detector in (sparse, detr):
        said = words(explain.layer_boxes(detector, PICTURE, threshold=0))
        assert any("1.00 IoU with the last" in each for each in said)
    assert "nothing was found" in words(explain.layer_boxes(sparse, PICTURE, threshold=1))


def test_a_dense_model_shows_what_it_has(dense):
    assert "100% of the tokens" in words(explain.kept_tokens(dense, PICTURE))[0]
    assert isinstance(explain.sampling_points(dense, PICTURE, threshold=0), Figure)
    for view in (explain.score_map, explain.attention):
        with pytest.raises(UsageError, match="every token"):
            view(dense, PICTURE)


def test_models_without_a_part_say_so(detr, regions):
    for view in (explain.score_map, explain.kept_tokens, explain.attention):
        with pytest.raises(UsageError, match="no tokens on levels"):
            view(detr, PICTURE)
    with pytest.raises(UsageError, match="does not aim"):
        explain.sampling_points(detr, PICTURE, threshold=0)
    with pytest.raises(UsageError, match="no decoder"):
        explain.layer_boxes(regions, PICTURE)
    with pytest.raises(UsageError, match="no detection 99"):
        explain.sampling_points(detr, PICTURE, 99)
