from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from winnow.errors import UsageError
from winnow.explain.panels import tiles
from winnow.explain.sheet import token_figure
from winnow.explain.tokens import Level, agreement, attention_on_kept, token_levels
from winnow.structures import Batch, Grid, Samples, Selection, shrink_padding

SHAPES = ((4, 6), (2, 3))


def output_of(sizes: tuple[tuple[int, int], ...], chosen: list[list[int]], samples: list[Samples] | None = None):
    """Scores are the tokens' numbers; two levels with strides 8 and 16 on a canvas of 32 x 48 pixels."""
    batch = Batch(torch.zeros(len(sizes), 3, 32, 48), sizes)
    grid = Grid.of(shrink_padding(batch.padding(), SHAPES), torch.device("cpu"))
    index = torch.tensor(chosen)
    scores = torch.arange(30.0).expand(len(sizes), -1)
    selection = Selection(index, torch.ones_like(index, dtype=torch.bool), scores)
    return SimpleNamespace(grid=grid, selection=selection, samples=samples or [])


def test_levels_say_where_tokens_were_kept():
    fine, coarse = token_levels(output_of(((32, 48),), [[0, 7, 29]]), (32, 48))
    assert (fine.stride, coarse.stride) == (8, 16)
    assert fine.kept.nonzero()[0].tolist() == [0, 1] and fine.kept.nonzero()[1].tolist() == [0, 1]
    assert coarse.kept[1, 2] == 1 and coarse.kept.sum() == 1
    assert fine.kept_share == "2 of 24 tokens, 8.3%"


def test_maps_cover_the_image_only():
    output = output_of(((32, 48), (16, 32)), [[0, 1], [0, 1]])
    fine, coarse = token_levels(output, (32, 48), image=1)
    assert fine.scores.tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert coarse.scores.tolist() == [[24, 25]]


def test_the_share_of_attention_on_kept_tokens_is_known():
    locations = torch.zeros(1, 1, 1, 2, 1, 2)
    locations[0, 0, 0, 1, 0] = torch.tensor([1 / 3, 0.5])  # token 28: the corner of row 1, column 1
    samples = [Samples(locations, torch.tensor([0.25, 0.75]).view(1, 1, 1, 2, 1))]
    output = output_of(((32, 48),), [[28]], samples)
    assert attention_on_kept(token_levels(output, (32, 48))) == pytest.approx(0.75, abs=1e-4)
    assert attention_on_kept(token_levels(output_of(((32, 48),), [[28]]), (32, 48))) is None


def test_a_dense_model_has_no_choice_to_show(dense):
    seen = dense.run(Image.new("RGB", (64, 64)))
    levels = token_levels(seen.output, seen.size)
    with pytest.raises(UsageError, match="every token"):
        token_figure(seen.image, seen.detections, levels)


def level_of(scores, kept, looked) -> Level:
    return Level(8, *(np.array([each], np.float32) for each in (kept, scores, looked)))


def test_a_scorer_that_foresees_the_decoder_agrees_with_it():
    perfect = agreement([level_of([1, 2, 3, 4], [0, 0, 1, 1], [0, 1, 5, 9])])
    assert perfect.rank_correlation == pytest.approx(1) and perfect.overlap == 1
    assert perfect.attention == pytest.approx(14 / 15)
    opposite = agreement([level_of([4, 3, 2, 1], [1, 1, 0, 0], [0, 1, 5, 9])])
    assert opposite.rank_correlation == pytest.approx(-1) and opposite.overlap == 0


def test_agreement_counts_the_tokens_of_all_levels():
    both = [level_of([1, 2], [0, 1], [1, 2]), level_of([4, 3], [1, 0], [3, 4])]
    assert agreement(both).overlap == 0.5 and agreement(both).rank_correlation == pytest.approx(0.8)


def test_scores_that_are_all_alike_correlate_with_nothing():
    assert np.isnan(agreement([level_of([1, 1], [1, 0], [1, 2])]).rank_correlation)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (200, 64)])
def test_the_figure_shows_a_panel_for_each_level_and_four_more(sparse, size):
    seen = sparse.run(Image.new("RGB", size))
    levels = token_levels(seen.output, seen.size)
    sheet = token_figure(seen.image, seen.detections, levels)
    assert len(levels) == 4 and sheet.width > 4 * 380
    assert np.asarray(sheet).std() > 5


def test_bright_pixels_of_a_level_are_its_kept_cells():
    kept = np.array([[1, 0], [0, 0]], np.float32)
    lit = np.asarray(tiles(Image.new("RGB", (80, 80), "white"), kept))
    assert lit[20, 20].min() == 255 and lit[60, 60].max() < 100 and lit[20, 60].max() < 100


def test_a_level_knows_its_share():
    level = Level(8, np.ones((2, 5), np.float32), np.zeros((2, 5), np.float32), None)
    assert level.kept_share == "10 of 10 tokens, 100%"
