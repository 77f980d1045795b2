"""Where a token or a box is, as waves."""

from __future__ import annotations

import pytest
import torch

from winnow.positions import LearnedPositions, encode_boxes, encode_grid


def test_a_padded_map_gives_the_papers_waves() -> None:
    padding = torch.tensor([[[False, False, True]] * 2])
    place = encode_grid(padding, 256)[0, 1, 0]  # row 1, column 0
    assert place[:4].tolist() == pytest.approx([-1.0, -1.8954e-06, -0.8070661, -0.5904610], abs=2e-6)
    assert place[126:132].tolist() == pytest.approx(
        [5.4417795e-04, 0.9999999, 1.0, 6.7154e-07, 0.9779176, 0.2089912], abs=2e-6)


def test_a_box_of_halves_gives_the_references_waves() -> None:
    waves = encode_boxes(torch.full((1, 1, 4), 0.5))[0, 0]
    assert waves.shape == (512,)
    assert waves[:4].tolist() == pytest.approx([-8.74e-08, -1, 0.4087512, -0.9126459], abs=1e-6)
    assert waves[126:129].tolist() == pytest.approx([3.6278545e-04, 0.9999999, -8.74e-08], abs=1e-6)


def test_padding_on_the_far_side_moves_nothing() -> None:
    alone = encode_grid(torch.zeros(1, 4, 5, dtype=torch.bool), 16)
    padding = torch.ones(1, 6, 9, dtype=torch.bool)
    padding[:, :4, :5] = False
    assert torch.allclose(encode_grid(padding, 16)[:, :4, :5], alone, atol=1e-5)


def test_every_place_of_a_map_is_its_own() -> None:
    places = encode_grid(torch.zeros(1, 6, 7, dtype=torch.bool), 32).flatten(1, 2)[0]
    apart = torch.cdist(places, places) + torch.eye(42)
    assert apart.min() > 0.05


def test_learned_places_put_columns_before_rows_and_know_their_limit() -> None:
    places = LearnedPositions(8, most=5)
    found = places(torch.zeros(2, 3, 5, dtype=torch.bool))
    assert found.shape == (2, 3, 5, 8)
    assert torch.equal(found[0, 1, 4], torch.cat([places.column.weight[4], places.row.weight[1]]))
    with pytest.raises(ValueError, match="up to 5x5 tokens, got 3x6"):
        places(torch.zeros(1, 3, 6, dtype=torch.bool))
