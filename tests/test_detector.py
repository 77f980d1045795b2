"""The whole path: what goes in, what comes out, and what runs only in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from winnow.detector import Detector, best_boxes
from winnow.papers import deformable_detr, efficient_detr, sparse_detr
from winnow.structures import Batch, Output, Prediction

from .tiny import SMALL, Patches, batch_of, objects, rows_seen, same, shaken


def sparse(**settings: Any) -> Detector:
    """Sparse DETR of five queries and three classes."""
    made = sparse_detr(**{"rho": 0.3, "classes": 3, "queries": 5, "backbone": Patches(), "size": SMALL} | settings)
    shaken(made)
    return made


@pytest.fixture
def batch() -> Batch:
    return batch_of((64, 96), (48, 64))


def names(output: Output) -> list[str]:
    return [stage.name for stage in output.stages]


def test_without_targets_there_is_one_prediction_and_nothing_to_supervise(batch: Batch) -> None:
    output = sparse()(batch)
    assert output.final.logits.shape == (2, 5, 3)
    assert output.final.boxes.shape == (2, 5, 4)
    assert output.stages == []
    assert len(output.samples) == 2


def test_targets_make_every_stage_supervised_and_the_final_prediction_the_last(batch: Batch) -> None:
    output = sparse()(batch, objects(2, 1))
    assert names(output) == ["encoder.0", "proposals", "decoder.0", "decoder.1"]
    assert output.stages[-1].prediction is output.final


@pytest.mark.parametrize("specific", [False, True])
@pytest.mark.parametrize("start", ["box", "memory"])
@pytest.mark.parametrize("separate", [False, True])
def test_what_is_inferred_is_what_was_supervised(batch: Batch, start: Any, specific: bool, separate: bool) -> None:
    detector = sparse(start=start, specific=specific, separate_heads=separate)
    assert same(detector(batch).final, detector(batch, objects(2, 1)).final, tolerance=1e-5)


@pytest.mark.parametrize("compose", [deformable_detr, efficient_detr])
def test_a_dense_models_predictions_do_not_depend_on_supervision(batch: Batch, compose: Any) -> None:
    detector = compose(classes=3, queries=5, backbone=Patches(), size=SMALL, encoder_heads=True)
    shaken(detector)
    output = detector(batch)
    assert output.selection is None
    assert same(output.final, detector(batch, objects(2, 1)).final, tolerance=1e-5)


def test_heads_that_only_teach_do_not_run_at_inference(batch: Batch) -> None:
    detector = sparse(scorer="objectness")
    heads = {"encoder": detector.encoder.heads[0], "tokens": detector.encoder.plan.scorer.head,
             "proposals": detector.queries.head, "first": detector.decoder.heads[0], "last": detector.decoder.heads[1]}
    classes = {name: rows_seen(head.classify) for name, head in heads.items()}
    boxes = {name: rows_seen(head.locate) for name, head in heads.items()}
    tokens = detector(batch).memory.values.shape[1]
    assert classes == {"encoder": [], "tokens": [tokens], "proposals": [tokens], "first": [], "last": [5]}
    assert boxes == {"encoder": [], "tokens": [], "proposals": [5], "first": [5], "last": [5]}


def test_an_image_does_not_depend_on_others_of_its_size() -> None:
    detector, batch = sparse(), batch_of((64, 64), (64, 64))
    together, alone = detector(batch).final, detector(Batch(batch.images[1:], batch.sizes[1:])).final
    assert same(Prediction(together.logits[1:], together.boxes[1:]), alone, tolerance=1e-5)


def test_a_share_that_is_asked_for_reaches_the_encoder(batch: Batch) -> None:
    detector = sparse(scorer="random")
    few, many = (detector(batch, rho=rho).selection.chosen.sum(1) for rho in (0.05, 0.9))
    assert (few < many).all()
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        detector(batch, rho=1.5)
    with pytest.raises(ValueError, match="dense encoder"):
        sparse(rho=0.0)(batch, rho=0.5)


def test_noise_joins_only_while_training_with_targets(batch: Batch) -> None:
    detector, targets = sparse(denoising=4), objects(2, 1)
    noisy = ["denoising.0", "denoising.1"]
    assert names(detector.train()(batch, targets)) == ["encoder.0", "proposals", *noisy, "decoder.0", "decoder.1"]
    assert names(detector.eval()(batch, targets)) == ["encoder.0", "proposals", "decoder.0", "decoder.1"]
    assert names(detector.train()(batch, objects(0, 0))) == ["encoder.0", "proposals", *noisy, "decoder.0", "decoder.1"]
    assert detector.train()(batch).stages == []


def test_the_output_has_no_noisy_queries_and_is_the_same_without_them(batch: Batch) -> None:
    detector, targets = sparse(denoising=4), objects(2, 1)
    noisy, clean = detector.train()(batch, targets), detector.eval()(batch, targets)
    assert noisy.final.logits.shape == (2, 5, 3)
    assert [each.weights.shape[1] for each in noisy.samples] == [5, 5]
    assert same(noisy.final, clean.final, tolerance=1e-5)


def test_noise_knows_its_matches_and_how_often_each_object_is_asked_for(batch: Batch) -> None:
    stages = {stage.name: stage for stage in sparse(denoising=4).train()(batch, objects(2, 1)).stages}
    first = stages["denoising.0"]
    assert first.copies == 2
    assert [len(query) for query, _ in first.matches] == [4, 2]
    assert first.prediction.logits.shape == (2, 8, 3)
    assert stages["decoder.0"].matches is None


def test_heads_of_the_encoder_may_ask_for_several_predictions_of_an_object(batch: Batch) -> None:
    copies = {stage.name: stage.copies for stage in sparse(copies=3)(batch, objects(2, 1)).stages}
    assert copies == {"encoder.0": 3, "proposals": 1, "decoder.0": 1, "decoder.1": 1}


@pytest.mark.parametrize("counts", [(2, 0), (0, 0)], ids=["one image empty", "all images empty"])
@pytest.mark.parametrize("settings", [{}, {"scorer": "objectness"}, {"denoising": 4, "copies": 2}],
                         ids=["dam", "objectness", "denoising"])
def test_images_without_objects_give_finite_losses_and_gradients(batch: Batch, counts: tuple[int, int],
                                                                 settings: dict[str, Any]) -> None:
    detector = sparse(**settings).train()
    losses = detector.losses(batch, objects(*counts))
    losses.total.backward()
    assert all(term.isfinite() for term in losses.terms.values())
    gradients = [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def test_more_objects_than_queries_can_be_trained_on(batch: Batch) -> None:
    losses = sparse(denoising=4).train().losses(batch, objects(9, 1))
    assert losses.total.isfinite()


def test_a_step_downhill_lowers_the_loss(batch: Batch) -> None:
    detector, targets = sparse(rho=0.0), objects(2, 1)
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4)
    before = detector.losses(batch, targets).total
    before.backward()
    optimizer.step()
    assert detector.losses(batch, targets).total < before


@pytest.fixture
def prediction() -> Prediction:
    """Two queries and three classes: query 1 is surely class 2 and perhaps class 0, query 0 is likely class 1."""
    logits = torch.tensor([[[-5.0, 1.0, -6.0], [0.0, -7.0, 3.0]]])
    return Prediction(logits, torch.tensor([[[0.5, 0.5, 1.0, 0.5], [0.25, 0.75, 0.5, 0.5]]]))


def test_boxes_come_in_pixels_of_the_original_image_best_first(prediction: Prediction) -> None:
    (found,) = best_boxes(prediction, [(200, 400)], keep=2)
    assert found.labels.tolist() == [2, 1]
    assert found.corners.tolist() == [[0, 100, 200, 200], [0, 50, 400, 150]]
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, 1.0]).sigmoid().tolist())


def test_one_query_may_be_found_with_several_classes(prediction: Prediction) -> None:
    (found,) = best_boxes(prediction, [(200, 400)], keep=3)
    assert found.labels.tolist() == [2, 1, 0]
    assert torch.equal(found.corners[2], found.corners[0])


def test_keeping_more_than_there_is_gives_all(prediction: Prediction) -> None:
    (found,) = best_boxes(prediction, [(200, 400)], keep=100)
    assert len(found.scores) == len(found.corners) == len(found.labels) == 6


def test_each_image_has_its_own_size(prediction: Prediction) -> None:
    two = Prediction(prediction.logits.repeat(2, 1, 1), prediction.boxes.repeat(2, 1, 1))
    small, large = best_boxes(two, [(10, 20), (100, 200)], keep=1)
    assert torch.allclose(large.corners, 10 * small.corners)


def test_half_precision_is_ranked_in_full(prediction: Prediction) -> None:
    (found,) = best_boxes(Prediction(prediction.logits.bfloat16(), prediction.boxes.bfloat16()), [(200, 400)])
    assert found.scores.dtype == found.corners.dtype == torch.float32


def test_detecting_tracks_no_gradients_and_does_not_care_for_the_size_of_the_canvas(batch: Batch) -> None:
    detector = sparse().eval()
    found = detector.detect(batch, [(640, 960), (480, 640)], keep=4)
    final = detector(batch).final
    assert [len(each.scores) for each in found] == [4, 4]
    expected = best_boxes(final, [(640, 960), (480, 640)], keep=4)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.corners, other.corners, atol=1e-3)
        assert not one.scores.requires_grad


def test_detecting_takes_a_share(batch: Batch) -> None:
    shares: list[Any] = []
    detector = sparse().eval()
    detector.encoder.register_forward_pre_hook(lambda _, __, options: shares.append(options["rho"]), with_kwargs=True)
    detector.detect(batch, batch.sizes, rho=0.6)
    detector.detect(batch, batch.sizes)
    assert shares == [0.6, None]


def test_dropout_rests_while_evaluating(batch: Batch) -> None:
    detector = sparse(size=replace(SMALL, dropout=0.5)).eval()
    assert same(detector(batch).final, detector(batch).final)
    assert not same(detector.train()(batch).final, detector(batch).final)
