from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch
from PIL import Image

import winnow
from winnow.errors import DataError, UsageError
from winnow.inference.predictor import Predictor, read
from winnow.weights.checkpoints import save

from .conftest import checkpoint_of


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 100, 3), np.uint8))


def test_boxes_are_pixels_of_the_image_and_clipped_to_it(fixed, picture):
    found = fixed.predict(picture)
    assert found.xyxy.tolist() == [[25, 30, 50, 60], [50, 0, 100, 30]]


def test_class_ids_are_the_data_sets_and_names_come_along(fixed, picture):
    found = fixed.predict(picture)
    assert found.class_id.tolist() == [3, 8]
    assert found.data["class_name"].tolist() == ["grain", "Spreu ü"]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.4], abs=1e-4)


def test_a_turned_photograph_gets_boxes_as_displayed(fixed, picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright
    picture.save(tmp_path / "turned.jpg", exif=exif)
    found = fixed.predict(tmp_path / "turned.jpg")
    assert found.xyxy[0].tolist() == [15, 50, 30, 100]  # displayed 60 wide and 100 high
    with Image.open(tmp_path / "turned.jpg") as opened:
        assert fixed.predict(opened).xyxy[0].tolist() == [15, 50, 30, 100]


def test_threshold_leaves_out_weak_detections_and_keeps_names_when_nothing_is_left(fixed, picture):
    assert len(fixed.predict(picture, threshold=0.5)) == 1
    nothing = fixed.predict(picture, threshold=0.95)
    assert len(nothing) == 0 and nothing.data["class_name"].tolist() == []


def test_path_array_and_picture_are_the_same_image(sparse, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), picture, np.asarray(picture)]
    found = sparse.predict(sources, threshold=0, keep=5)
    assert all(np.array_equal(each.xyxy, found[0].xyxy) for each in found)


def test_one_source_gives_one_result_and_a_list_a_list_in_its_order(fixed, picture):
    small, large = picture.resize((50, 30)), picture
    many = fixed.predict([large, small, large, small], batch_size=3)
    assert [each.xyxy[0].tolist()[2] for each in many] == [50, 25, 50, 25]
    assert [len(images) for images in fixed.detector.batches] == [2, 1, 1]
    assert fixed.predict([]) == []
    assert len(fixed.predict((large,))) == 1


def test_what_is_found_does_not_depend_on_the_images_beside_it(sparse, picture):
    others = [picture, picture.rotate(90, expand=True), picture.resize((100, 80)), picture]
    together = sparse.predict(others, threshold=0, batch_size=4)
    for image, found in zip(others, together, strict=True):
        assert found.xyxy == pytest.approx(sparse.predict(image, threshold=0).xyxy, abs=1e-2)


def test_rho_changes_how_many_tokens_are_kept(sparse, picture):
    few, many = (int(sparse.run(picture, rho=rho).output.selection.mask().sum()) for rho in (0.1, 0.5))
    tokens = sparse.run(picture).output.selection.scores.shape[1]
    assert (few, many) == (int(0.1 * tokens) + 1, int(0.5 * tokens) + 1)


def test_run_finds_what_predict_finds(sparse, picture):
    seen, found = sparse.run(picture, threshold=0), sparse.predict(picture, threshold=0)
    assert np.array_equal(seen.detections.xyxy, found.xyxy)
    assert seen.size == (64, 106) and seen.image.size == (100, 60)


@pytest.mark.parametrize("arguments", [{"threshold": 1.5}, {"rho": 0.0}, {"rho": 2}, {"batch_size": 0}, {"keep": 0}])
def test_arguments_out_of_range_are_refused(sparse, picture, arguments):
    with pytest.raises(UsageError, match=r"0|1"):
        sparse.predict(picture, **arguments)


def test_a_dense_model_refuses_rho(dense, picture):
    with pytest.raises(UsageError, match="keeps every token"):
        dense.predict(picture, rho=0.1)


@pytest.mark.parametrize("thing", [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.float32),
                                   np.zeros((8, 8), np.uint8), torch.zeros(3, 8, 8), 7, None, b"bytes"])
def test_what_is_no_image_is_refused_with_what_came(thing):
    with pytest.raises(UsageError, match="got"):
        read(thing)


def test_a_broken_file_says_which_and_why(fixed, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        fixed.predict(tmp_path / "broken.jpg")


def test_a_picture_without_colours_or_with_transparency_is_read(fixed, picture):
    for mode in ("L", "1", "P", "RGBA", "CMYK"):
        assert len(fixed.predict(picture.convert(mode))) == 2


def test_a_strip_of_fewer_tokens_than_queries_is_predicted(sparse):
    assert isinstance(sparse.predict(Image.new("RGB", (100, 1))), sv.Detections)


def test_a_closed_picture_is_an_error_of_its_own(fixed, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        pass
    with pytest.raises(DataError, match="PIL image"):
        fixed.predict(opened)


def test_an_output_without_a_name_is_an_error(fixed, picture):
    fixed.categories = fixed.categories[:1]
    with pytest.raises(UsageError, match="output 1 has no name"):
        fixed.predict(picture)


def test_a_checkpoint_and_a_run_folder_load_by_path(sparse, sparse_checkpoint, picture, tmp_path):
    save(tmp_path / "weights" / "best.safetensors", sparse_checkpoint)
    expected = sparse.predict(picture, threshold=0)
    for place in (tmp_path, str(tmp_path), tmp_path / "weights" / "best.safetensors"):
        found = winnow.load(place, "cpu").predict(picture, threshold=0)
        assert np.allclose(found.xyxy, expected.xyxy)
        assert found.data["class_name"].tolist() == expected.data["class_name"].tolist()


def test_a_known_model_without_weights_says_what_to_give():
    with pytest.raises(UsageError, match=r"no weights were published for pnp-detr-r50; .* or give a run folder"):
        winnow.load("pnp-detr-r50")


def test_an_unknown_model_names_its_neighbours():
    with pytest.raises(UsageError, match="sparse-detr-r50"):
        winnow.load("sparse-dert-r50")


def test_importing_winnow_does_not_import_torch():
    code = "import sys, winnow; sys.exit('torch' in sys.modules)"
    source = str(Path(winnow.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, check=False).returncode == 0


def test_the_predictor_is_ready_for_evaluation(sparse):
    assert isinstance(sparse, Predictor) and not sparse.detector.training and sparse.sparse


def test_predictions_come_from_the_form_that_only_predicts(sparse, sparse_checkpoint, picture):
    assert sparse.network is not sparse.detector
    quick, whole = sparse.run(picture, threshold=0), sparse.run(picture, threshold=0, samples=True)
    assert not quick.output.samples and whole.output.samples
    np.testing.assert_allclose(quick.detections.xyxy, whole.detections.xyxy, atol=0.01)
    rounded = Predictor(sparse_checkpoint, "cpu", "bf16")
    assert len(rounded.predict(picture, threshold=0)) == len(quick.detections)


def test_other_weights_of_the_detector_are_those_that_predict(picture):
    predictor = Predictor(checkpoint_of("sparse_detr", rho=0.2, queries=40), "cpu")
    before, form = predictor.predict(picture, threshold=0), predictor.network
    assert predictor.network is form
    predictor.detector.load_state_dict({name: value * 1.1 if value.is_floating_point() else value
                                        for name, value in predictor.detector.state_dict().items()})
    quick, whole = predictor.predict(picture, threshold=0), predictor.run(picture, threshold=0, samples=True).detections
    np.testing.assert_allclose(quick.confidence, whole.confidence, atol=1e-4)
    assert not np.allclose(quick.confidence, before.confidence, atol=1e-3)
    assert predictor.network is not form


def test_weights_put_in_the_place_of_others_are_those_that_predict(picture):
    predictor = Predictor(checkpoint_of("sparse_detr", rho=0.2, queries=40), "cpu")
    form, weights = predictor.network, predictor.detector.state_dict()
    predictor.detector.load_state_dict({name: value.clone() for name, value in weights.items()}, assign=True)
    assert predictor.network is not form
    form = predictor.network
    predictor.detector.decoder.heads[-1].classify = copy.deepcopy(predictor.detector.decoder.heads[-1].classify)
    assert predictor.network is not form


def test_a_precision_is_one_that_the_machine_and_the_model_have(fixed, sparse_checkpoint):
    with pytest.raises(UsageError, match="fp32, bf16, fp16"):
        Predictor(sparse_checkpoint, "cpu", "int8")
    with pytest.raises(UsageError, match="a Fixed has no form that computes in bf16"):
        fixed.detector.optimize("bf16")
    assert fixed.network is fixed.detector
