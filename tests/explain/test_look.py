from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from winnow.errors import UsageError
from winnow.explain import look
from winnow.inference.predictor import Predictor

from ..inference.conftest import checkpoint_of
from ..tiny import shaken

PICTURE = Image.effect_noise((120, 80), 60).convert("RGB")


def test_detections_are_those_of_predict_and_the_last_layer_has_their_boxes(sparse):
    seen = look(sparse, PICTURE, threshold=0)
    assert np.allclose(seen.detections.xyxy, sparse.predict(PICTURE, threshold=0).xyxy, atol=1e-3)
    last = seen.layers[-1].boxes[seen.queries].clip(0, [120, 80, 120, 80])
    assert len(seen.detections) and np.allclose(last, seen.detections.xyxy, atol=1e-3)


def test_only_detections_above_the_threshold_have_queries(sparse):
    scores = look(sparse, PICTURE, threshold=0).detections.confidence
    seen = look(sparse, PICTURE, threshold=float(scores[2]))
    assert len(seen.queries) == len(seen.detections) < len(scores)
    assert seen.query(0) == seen.queries[0]
    with pytest.raises(UsageError, match="no detection"):
        seen.query(len(seen.queries))


def test_every_layer_says_what_it_predicted_and_where_it_looked():
    detector = Predictor(checkpoint_of("sparse_detr", rho=0.2, queries=40, size={
        "width": 64, "heads": 2, "feedforward": 32, "encoder_layers": 1, "decoder_layers": 3}), "cpu")
    shaken(detector.detector.decoder)  # fresh heads leave boxes where they are
    seen = look(detector, PICTURE)
    assert len(seen.layers) == 3
    for layer in seen.layers:
        assert layer.boxes.shape == (40, 4) and layer.scores.shape == layer.labels.shape == (40,)
        assert layer.aim.points.shape == (40, 2, 4, 4, 2)
        assert np.allclose(layer.aim.weights.sum((-1, -2)), 1, atol=1e-5)
    assert not np.allclose(seen.layers[0].boxes, seen.layers[-1].boxes)


def test_after_a_layer_each_query_has_the_class_that_it_thought_best_by_then(sparse):
    seen = look(sparse, PICTURE, threshold=0)
    assert len(seen.queries) > len(set(seen.queries))  # some became two detections
    found = seen.at(seen.layers[-1])
    assert len(found) == len(set(seen.queries))
    assert found.data["class_name"][0] == seen.detections.data["class_name"][0]
    assert np.allclose(found.confidence[0], seen.detections.confidence[0], atol=1e-5)


def test_a_class_without_a_name_is_told_also_where_only_a_layer_thought_of_it(sparse):
    seen = look(sparse, PICTURE, threshold=0)
    thought = replace(seen.layers[0], labels=seen.layers[0].labels * 0 + 2)
    with pytest.raises(UsageError, match="output 2 has no name"):
        seen.at(thought)


def test_points_are_in_pixels_of_the_image_around_where_queries_start(sparse):
    """Fresh heads look in rings around their query and predict the box it starts from: both have one middle."""
    (layer,) = look(sparse, PICTURE).layers
    middles = (layer.boxes[:, :2] + layer.boxes[:, 2:]) / 2
    assert np.allclose(layer.aim.points.mean((1, 2, 3)), middles, atol=0.05)
    assert (middles.max(0) > [60, 40]).all()


def test_tokens_are_told_for_sparse_models_and_attention_for_all_that_aim(sparse, dense):
    levels = look(sparse, PICTURE).levels
    assert sum(level.kept.sum() for level in levels) < sum(level.kept.size for level in levels) / 3
    everything = look(dense, PICTURE).levels
    assert all(level.kept.all() and level.scores is None and level.looked is not None for level in everything)
    assert sum(level.looked.sum() for level in everything) > 0


def test_a_model_leaves_out_what_it_does_not_have(detr, regions):
    seen = look(detr, PICTURE, threshold=0)
    assert not seen.levels and seen.layers and all(layer.aim is None for layer in seen.layers)
    with pytest.raises(UsageError, match="sampling points"):
        seen.aims()
    seen = look(regions, PICTURE, threshold=0)
    assert not seen.levels and not seen.layers and not len(seen.queries)
    with pytest.raises(UsageError, match="no decoder"):
        seen.query(0)


def test_a_module_is_not_what_load_gives(sparse):
    with pytest.raises(UsageError, match=r"winnow\.load"):
        look(sparse.detector, PICTURE)
