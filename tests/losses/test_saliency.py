"""The decoder attention map, its target, and the loss that teaches a scorer."""

from __future__ import annotations

import pytest
import torch

from winnow.losses.saliency import attention_kept, attention_map, saliency_loss, saliency_target
from winnow.structures import Grid, Pyramid, Samples, Selection

SHAPES = ((4, 4), (2, 2))


@pytest.fixture
def grid() -> Grid:
    return Grid.of([torch.zeros(1, *shape, dtype=torch.bool) for shape in SHAPES], torch.device("cpu"))


@pytest.fixture
def samples() -> Samples:
    places = torch.tensor([(0.5, 0.5), (0.4, 0.9)]).view(1, 1, 1, 2, 1, 2)
    return Samples(places, torch.tensor([0.6, 0.4]).view(1, 1, 1, 2, 1))


def selected(index: list[int], used: int, scores: torch.Tensor) -> Selection:
    chosen = torch.arange(len(index)) < used
    return Selection(torch.tensor([index]), chosen[None], scores)


def test_a_sample_gives_its_weight_to_the_four_tokens_around_it(grid: Grid, samples: Samples) -> None:
    received = attention_map([samples], grid)[0]
    assert received[10].item() == pytest.approx(0.6)
    assert received[18:].tolist() == pytest.approx([0.016, 0.064])
    assert received.sum().item() == pytest.approx(0.68)  # what falls outside a level is lost


def test_layers_add_up(grid: Grid, samples: Samples) -> None:
    assert torch.allclose(attention_map([samples] * 3, grid), 3 * attention_map([samples], grid))


def test_the_share_of_attention_on_chosen_tokens_is_told_by_level(grid: Grid, samples: Samples) -> None:
    received = attention_map([samples], grid)
    kept = attention_kept(selected([10, 18], 2, torch.zeros(1, 20)), received, grid)
    assert {key: value.item() for key, value in kept.items()} == pytest.approx(
        {"all": 0.9058824, "0": 1.0, "1": 0.2})


def test_a_level_that_nobody_looks_at_does_not_spoil_the_share(grid: Grid) -> None:
    received = torch.zeros(1, 20)
    received[0, 3] = 1
    kept = attention_kept(selected([3], 1, received), received, grid)
    assert kept["all"].item() == 1
    assert kept["1"].isnan()


def test_the_target_marks_as_many_tokens_as_each_image_keeps_and_no_padding() -> None:
    received = torch.tensor([[9.0, 5, 1, 7], [0, 0, 0, 3]])
    padding = torch.tensor([[True, False, False, False], [False] * 4])
    target = saliency_target(received, padding, torch.tensor([2, 1]))
    assert target.tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]


def test_the_loss_falls_when_the_scores_follow_the_attention(grid: Grid, samples: Samples) -> None:
    received = attention_map([samples], grid)
    zeros = torch.zeros(1, 20, 2)
    memory = Pyramid(zeros, zeros, torch.zeros(1, 20, dtype=torch.bool), grid)
    right = torch.full((1, 20), -9.0)
    right[0, 10] = 9.0
    fair, wrong = (saliency_loss(selected([10], 1, scores), received, memory) for scores in (right, -right))
    assert fair < 0.01
    assert wrong > 1


def test_the_map_is_the_sum_that_is_read_token_by_token() -> None:
    torch.manual_seed(0)
    grid = Grid.of([torch.zeros(2, *shape, dtype=torch.bool) for shape in SHAPES], torch.device("cpu"))
    sample = Samples(torch.rand(2, 3, 2, 2, 4, 2) * 1.6 - 0.3, torch.rand(2, 3, 2, 2, 4))
    received = attention_map([sample], grid)
    for image in range(2):
        for level, (height, width) in enumerate(SHAPES):
            x, y = (sample.locations[image, :, :, level] * torch.tensor([width, height])).unbind(-1)
            for token in range(height * width):
                row, column = divmod(token, width)
                shares = (1 - (x - column).abs()).clamp(min=0) * (1 - (y - row).abs()).clamp(min=0)
                expected = (shares * sample.weights[image, :, :, level]).sum()
                assert received[image, grid.starts[level] + token].item() == pytest.approx(expected.item(), abs=1e-5)
