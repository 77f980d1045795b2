"""`winnow models`: every model with its cost, its paper's figures and its weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from winnow import catalogue, cli, models
from winnow.catalogue import entries, matching
from winnow.errors import UsageError

KEYS = ["name", "family", "backbone", "rho", "params", "params_trainable", "gflops", "size", "published", "weights"]
PROMISED = [
    "sparse-detr-r50", "sparse-detr-swint", "deformable-detr-r50", "deformable-detr-refine-r50",
    "deformable-detr-two-stage-r50", "deformable-detr-swint", "efficient-detr-r50", "efficient-detr-swint",
    "lite-deformable-detr-r50", "dino-r50", "dino-3scale-r50", "dino-swint", "lite-dino-r50", "lite-dino-swint",
    "detr-r50", "detr-dc5-r50", "detr-swint", "pnp-detr-r50", "pnp-detr-dc5-r50", "faster-rcnn-fpn-r50",
    "sparse-detr-tiny", *(f"sparse-detr-{kind}-rho{share}" for kind in ("r50", "swint", "scrl-r50")
                          for share in (10, 20, 30, 40, 50)),
]


@pytest.fixture
def listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[dict[str, Any]], str]]:
    """Run the verb: the rows of its JSON, and its words."""
    def run(*words: str) -> tuple[list[dict[str, Any]], str]:
        path = tmp_path / "models.json"
        with pytest.raises(SystemExit) as end:
            cli.main(["models", *words, "--json", str(path)])
        assert not end.value.code
        return json.loads(path.read_text()), capsys.readouterr().out
    return run


def test_in_a_file_every_model_is_a_line_with_all_of_its_source(listed):
    _, told = listed("sparse-detr-scrl-r50-rho10")
    assert [line.split()[-1] for line in told.splitlines() if "scrl" in line] == ["twg.kakaocdn.net"]


def test_every_name_that_is_promised_is_listed(listed):
    rows, told = listed()
    assert {row["name"] for row in rows} == set(models.MODELS) >= set(PROMISED)
    assert all(name in told for name in PROMISED)


def test_all_but_the_weights_fit_a_terminal_of_eighty_columns():
    narrow = Console(width=80, record=True, file=io.StringIO())
    narrow.print(catalogue.table(entries("dino")))
    words = narrow.export_text()
    assert max(map(len, words.splitlines())) <= 80
    assert all(name in words for name in matching("dino")) and "GFLOPs" in words


def test_rows_have_the_keys_that_are_promised(listed):
    rows, _ = listed()
    assert all(list(row) == KEYS for row in rows)
    assert all(list(row["published"]) == ["ap", "params", "gflops"] for row in rows)
    assert all(row["weights"] is None or list(row["weights"]) == ["url", "licence", "ap"] for row in rows)
    assert {row["size"] for row in rows} == {"800x1066"}


def test_a_row_says_what_a_model_is_what_it_costs_and_what_its_paper_prints(listed):
    (row,), told = listed("sparse-detr-swint-rho30")
    assert row | {"weights": None} == {
        "name": "sparse-detr-swint-rho30", "family": "sparse_detr", "backbone": "swin_tiny_patch4_window7_224",
        "rho": 0.3, "params": 42_480_239, "params_trainable": 41_396_158, "gflops": pytest.approx(125.97, abs=0.05),
        "size": "800x1066", "published": {"ap": 49.1, "params": 41.4, "gflops": 128.5}, "weights": None}
    assert all(words in told for words in ("49.1", "41.40", "(41.4)", "126.0", "(128.5)", "800x1066"))


@pytest.mark.parametrize(("name", "backbone", "rho"), [
    ("detr-dc5-r50", "resnet50-dc5", None), ("efficient-detr-r50", "resnet50", None),
    ("sparse-dino-r50", "resnet50", 0.3), ("pnp-detr-r50", "resnet50", 1 / 3), ("sparse-detr-tiny", "resnet10t", 0.2)])
def test_the_backbone_tells_dc5_and_only_sparse_models_have_a_share(name, backbone, rho):
    row = next(entry.as_dict() for entry in entries() if entry.model.name == name)
    assert (row["backbone"], row["rho"]) == (backbone, rho)


def test_a_size_is_counted_with_a_word_on_how_far_it_is(listed):
    (usual,), _ = listed("sparse-detr-tiny")
    (small,), told = listed("sparse-detr-tiny", "--size", "96x128")
    assert small["size"] == "96x128"
    assert small["gflops"] < usual["gflops"] / 20
    assert small["params"] == usual["params"]
    assert "counting 1/1" in told


@pytest.mark.parametrize(("pattern", "names"), [
    ("dc5", ["deformable-detr-dc5-r50", "detr-dc5-r50", "pnp-detr-dc5-r50", "pnp-detr-dc5-r50-rho33",
             "pnp-detr-dc5-r50-rho50"]),
    ("DC5-R50-rho5?", []), ("detr-*", ["detr-r50", "detr-dc5-r50", "detr-swint"]), ("DETR-R5?", ["detr-r50"])])
def test_a_pattern_is_part_of_names_or_fits_them_whole(pattern, names):
    if names:
        assert matching(pattern) == names
    else:
        with pytest.raises(UsageError, match="no model's name"):
            matching(pattern)


@pytest.mark.parametrize(("words", "told"), [
    (["yolo"], "no model's name has 'yolo' in it"), (["--size", "800"], "a size is HEIGHTxWIDTH"),
    (["--json", "."], "is a folder")])
def test_what_can_not_be_listed_ends_with_one_line(words, told, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["models", *words])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("winnow: ") and told in said and said.count("\n") == 1


def test_weights_tell_where_they_are_under_which_licence_and_their_own_ap(listed):
    rows, told = listed("faster-rcnn")
    weights = rows[0]["weights"]
    assert weights["url"].startswith("https://") and weights["url"].endswith(".pth")
    assert (weights["licence"], weights["ap"], rows[0]["published"]["ap"]) == ("BSD-3-Clause", 37.0, 42.0)
    assert "download" in told
    assert catalogue.published_weights("sparse-dino-r50") is None
