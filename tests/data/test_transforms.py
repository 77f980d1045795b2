from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes

from winnow.data import transforms
from winnow.data.transforms import evaluation, prepare, resized, training


def picture(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def corners(image: Image.Image, *boxes: tuple[float, ...]) -> BoundingBoxes:
    return BoundingBoxes(torch.tensor(boxes).reshape(-1, 4).float(), format="XYXY",
                         canvas_size=(image.height, image.width))


def test_resize_follows_the_reference_in_every_case(golden: Path):
    table = load_file(golden / "core_losses.safetensors")["resize/h_w_size_maxsize_outh_outw"].tolist()
    assert len(table) > 40
    for height, width, size, longest, *expected in table:
        assert list(resized(height, width, size, None if longest < 0 else longest)) == expected


@pytest.mark.parametrize(("height", "width", "expected"), [
    (426, 640, (800, 1201)), (480, 640, (800, 1066)), (300, 640, (625, 1333)), (500, 1920, (347, 1332)),
    (40, 12000, (4, 1200)), (1, 1, (800, 800)), (1, 9000, (1, 9000)),
])
def test_resized_keeps_proportions_and_at_least_a_pixel(height, width, expected):
    assert resized(height, width, 800, 1333) == expected
    assert resized(width, height, 800, 1333) == expected[::-1]


def test_evaluation_scales_boxes_with_the_picture():
    image = picture()
    pixels, target = evaluation(96, None)(image, corners(image, (16, 12, 48, 24)), torch.tensor([5]))
    assert pixels.shape == (3, 96, 128)
    assert target.labels.tolist() == [5]
    torch.testing.assert_close(target.boxes, torch.tensor([[0.5, 0.375, 0.5, 0.25]]))


def test_prediction_sees_what_evaluation_sees():
    image = picture()
    seen, _ = evaluation(40, 60)(image, corners(image), torch.zeros(0, dtype=torch.int64))
    assert torch.equal(prepare(image, 40, 60), seen)


def test_pixels_are_normalised_as_imagenet_was():
    grey = prepare(Image.new("RGB", (8, 8), (124, 116, 104)), 8)
    assert grey.abs().max() < 0.01
    assert prepare(Image.new("RGB", (8, 8), "white"), 8)[0, 0, 0] == pytest.approx((1 - 0.485) / 0.229)


def test_resampling_is_pillows_bilinear_filter():
    image = picture()
    expected = np.asarray(image.resize((32, 24), Image.Resampling.BILINEAR)) / 255
    mean, std = (np.array(each) for each in (transforms.MEAN, transforms.STD))
    np.testing.assert_allclose(prepare(image, 24).permute(1, 2, 0), (expected - mean) / std, atol=1e-5)


def test_boxes_outside_the_picture_vanish_and_others_end_at_its_edge():
    image = picture()
    _, target = evaluation(48)(image, corners(image, (-10, 0, 32, 48), (70, 0, 90, 20), (5, 5, 5, 9)), torch.arange(3))
    assert target.labels.tolist() == [0]
    torch.testing.assert_close(target.boxes, torch.tensor([[0.25, 0.5, 0.5, 1.0]]))


def bright_square() -> tuple[Image.Image, tuple[int, int, int, int]]:
    image = Image.new("RGB", (320, 240))
    box = (100, 60, 220, 160)
    image.paste((255, 255, 255), box)
    return image, box


@pytest.mark.parametrize("style", ["reference", "light", "small"])
def test_boxes_follow_their_object_through_every_random_view(style):
    image, box = bright_square()
    view = training(240, 400, style, **({"vertical": True, "colour": 0.0} if style != "reference" else {}))
    torch.manual_seed(0)
    kept = 0
    for _ in range(40):
        pixels, target = view(image, corners(image, box), torch.tensor([1]))
        height, width = pixels.shape[1:]
        bright = pixels[0] > 1
        if len(target.boxes):
            kept += 1
            cx, cy, w, h = (target.boxes[0] * torch.tensor([width, height, width, height])).tolist()
            ys, xs = bright.nonzero().unbind(1)
            found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] == pytest.approx([float(v) for v in found], abs=2.5)
        elif style == "reference":
            assert not bright.any()
    assert kept > 30


def test_reference_sizes_are_the_papers_at_800_and_in_proportion_below():
    image = picture(640, 480)
    torch.manual_seed(1)
    plain = transforms.Resize(transforms.SIDES, 1333)
    assert {plain(image).height for _ in range(60)} == set(transforms.SIDES)
    view = training(400, 666)
    shorts = {min(view(image, corners(image), torch.zeros(0))[0].shape[1:]) for _ in range(60)}
    assert min(shorts) >= 240 * 0.6
    assert max(shorts) == 400


def test_crops_have_the_sides_asked_for():
    crop = transforms.Crop(10, 20)
    torch.manual_seed(0)
    sizes = [crop(picture(40, 15)).size for _ in range(200)]
    assert {width for width, _ in sizes} == set(range(10, 21))
    assert {height for _, height in sizes} == set(range(10, 16))


def test_small_crops_forget_objects_of_which_little_is_left():
    crop = transforms.PartialCrop(least=0.5, visible=0.3)
    image = picture(100, 100)
    torch.manual_seed(0)
    for _ in range(50):
        cut, boxes = crop(image, corners(image, (0, 0, 40, 40)))
        area = float((boxes[0, 2:] - boxes[0, :2]).prod())
        assert area == 0 or area >= 0.3 * 1600
        assert min(cut.size) >= 50


@pytest.mark.parametrize("size", [(1, 1), (3000, 10), (2, 700)])
@pytest.mark.parametrize("style", ["reference", "light", "small"])
@pytest.mark.parametrize("boxes", [(), ((0, 0, 1, 1),)])
def test_odd_pictures_survive_training(size, style, boxes):
    image = Image.new("RGB", size)
    torch.manual_seed(0)
    for _ in range(6):
        pixels, target = training(64, 107, style)(image, corners(image, *boxes), torch.arange(len(boxes)))
        assert min(pixels.shape) >= 1
        assert max(pixels.shape) < 1000
        assert target.boxes.shape == (len(target.labels), 4)


def test_views_depend_on_torchs_seed_alone():
    image, box = bright_square()

    def views(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [training(96, 160, style)(image, corners(image, box), torch.tensor([0]))[0]
                for style in ("reference", "small") for _ in range(4)]

    first = views(3)
    np.random.seed(7)
    assert all(torch.equal(a, b) for a, b in zip(first, views(3), strict=True))
    assert any(a.shape != b.shape for a, b in zip(first, views(4), strict=True))


def test_an_unknown_style_or_option_is_refused():
    with pytest.raises(ValueError, match='must be "reference", "flip", "light" or "small"'):
        training(style="big")
    with pytest.raises(TypeError, match="takes no options, got colour"):
        training(colour=0.1)
