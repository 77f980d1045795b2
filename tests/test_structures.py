"""The values that travel: what they promise about padding, places and choices."""

from __future__ import annotations

import pytest
import torch

from winnow.structures import Batch, Grid, Prediction, Samples, Selection, shrink_padding

from .tiny import cropped, pyramid


def test_images_lie_in_the_top_left_corner_and_the_rest_is_padding() -> None:
    tall, wide = torch.ones(3, 4, 2), torch.ones(3, 1, 5)
    batch = Batch.of([tall, wide])
    assert batch.images.shape == (2, 3, 4, 5)
    assert batch.sizes == ((4, 2), (1, 5))
    assert torch.equal(batch.images[:, 0] == 0, batch.padding())
    assert batch.padding().sum((1, 2)).tolist() == [12, 15]


def test_an_image_alone_is_not_padded() -> None:
    image = torch.randn(3, 5, 7)
    batch = Batch.of([image])
    assert torch.equal(batch.images[0], image)
    assert not batch.padding().any()


def test_a_batch_needs_an_image() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        Batch.of([])


@pytest.mark.parametrize(("sizes", "padded"), [([(8, 6)], False), ([(8, 6), (8, 6)], False), ([(8, 6), (8, 5)], True),
                                               ([(8, 6), (4, 6)], True), ([(8, 4), (4, 6)], True)])
def test_a_batch_knows_whether_it_has_padding(sizes: list[tuple[int, int]], padded: bool) -> None:
    batch = Batch.of([torch.zeros(3, *size) for size in sizes])
    assert batch.padded is padded is bool(batch.padding().any())


def test_even_the_smallest_image_keeps_a_token_on_the_coarsest_level() -> None:
    padding = Batch.of([torch.zeros(3, 64, 64), torch.zeros(3, 1, 1)]).padding()
    for mask in shrink_padding(padding, [(8, 8), (1, 1)]):
        assert not mask[1, 0, 0]


def test_a_grid_counts_the_tokens_inside_each_image_over_all_levels() -> None:
    grid = pyramid((4, 6), (2, 4)).grid
    assert grid.shapes == ((4, 6), (2, 3))
    assert grid.starts == [0, 24, 30]
    assert grid.counts == (30, 8 + 2)


def test_places_do_not_depend_on_the_other_images_of_a_batch() -> None:
    memory = pyramid((8, 12), (4, 6))
    grid, alone = memory.grid, cropped(memory, 1, (4, 6)).grid
    inside = ~memory.padding[1]
    assert torch.allclose(grid.centers[1, inside], alone.centers[0])
    assert torch.allclose(grid.anchors[1, inside], alone.anchors[0])


def test_centers_lie_in_the_middle_of_tokens_and_beyond_the_image_on_padding() -> None:
    memory = pyramid((4, 4), (2, 2), levels=1)
    assert memory.grid.centers[0, [0, 5]].tolist() == [[0.125, 0.125], [0.375, 0.375]]
    assert (memory.grid.centers[1, memory.padding[1]].amax(-1) > 1).all()


def test_anchors_double_their_side_with_each_level() -> None:
    anchors = pyramid((4, 4), levels=3).grid.anchors.sigmoid()
    assert anchors[0, [0, 16, 20], 2:].tolist() == [pytest.approx([side, side]) for side in (0.05, 0.1, 0.2)]
    assert anchors[0, 16, :2].tolist() == pytest.approx([0.25, 0.25])


def test_no_anchor_starts_on_padding_or_at_the_very_edge() -> None:
    memory = pyramid((64, 64), (32, 64), levels=1)
    startless = memory.grid.anchors.isinf().all(-1)
    assert startless[memory.padding].all()
    edge = torch.ones(64, 64, dtype=torch.bool)
    edge[1:-1, 1:-1] = False  # 0.5 / 64 < 0.01
    assert torch.equal(startless[0].view(64, 64), edge)


def test_other_values_stay_at_the_same_places() -> None:
    memory = pyramid((4, 4))
    moved = memory.with_values(memory.values + 1)
    assert moved.grid is memory.grid
    assert moved.positions is memory.positions
    assert torch.equal(moved.values, memory.values + 1)


@pytest.fixture
def selection() -> Selection:
    """Tokens 3, 0 and 2 of the first image; token 1, and two surplus rows, of the second."""
    chosen = torch.tensor([[True, True, True], [True, False, False]])
    return Selection(torch.tensor([[3, 0, 2], [1, 3, 0]]), chosen, torch.zeros(2, 4))


def test_a_selection_takes_rows_best_first(selection: Selection) -> None:
    x = torch.arange(16.0).view(2, 4, 2)
    assert torch.equal(selection.take(x)[0], x[0, [3, 0, 2]])
    assert torch.equal(selection.take(x)[1], x[1, [1, 3, 0]])


def test_a_selection_puts_back_what_it_chose_and_nothing_else(selection: Selection) -> None:
    base, new = torch.zeros(2, 4, 2), torch.ones(2, 3, 2)
    changed = selection.put(base, new)[..., 0].bool()
    assert changed.tolist() == [[True, False, True, True], [False, True, False, False]]
    assert torch.equal(changed, selection.mask())
    assert not base.any()


def test_gradients_pass_only_through_rows_that_were_put(selection: Selection) -> None:
    base, new = torch.zeros(2, 4, 2, requires_grad=True), torch.ones(2, 3, 2, requires_grad=True)
    selection.put(base, new).sum().backward()
    assert torch.equal(new.grad[..., 0].bool(), selection.chosen)
    assert torch.equal(base.grad[..., 0] == 0, selection.mask())


def test_predictions_and_samples_are_cut_as_one() -> None:
    prediction = Prediction(torch.randn(2, 5, 3), torch.rand(2, 5, 4))[:, 1:3]
    assert prediction.logits.shape == (2, 2, 3)
    assert prediction.boxes.shape == (2, 2, 4)
    samples = Samples(torch.rand(2, 5, 1, 1, 2, 2), torch.rand(2, 5, 1, 1, 2))[:, :4]
    assert (samples.locations.shape[1], samples.weights.shape[1]) == (4, 4)


def test_a_grid_is_made_of_any_level_shapes() -> None:
    outside = [torch.zeros(1, h, w, dtype=torch.bool) for h, w in ((5, 3), (1, 1), (2, 7))]
    grid = Grid.of(outside, torch.device("cpu"))
    assert grid.counts == (15 + 1 + 14,)
    assert grid.centers.shape == (1, 30, 2)
    assert torch.equal(grid.valid, torch.ones(1, 3, 2))
