"""Kernels are made where there is a compiler; where there are none, another backend serves and says so once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from winnow import ops
from winnow.errors import UsageError
from winnow.ops import build, choice, cpu, library, plain, winograd

SHAPES = ((5, 7), (2, 3))
compiled = pytest.mark.skipif(library.missing() is not None, reason=f"needs the compiled kernels: {library.missing()}")


def test_without_a_compiler_nothing_is_built_and_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "is_fresh", lambda: False)
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(build.NotBuiltError, match="no C compiler called no-such-compiler"):
        build.build()


@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_name_of_a_compiler_is_none(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", blank)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(build.NotBuiltError, match="no C compiler called"):
        build.compiler()


def test_a_folder_that_can_not_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "is_fresh", lambda: False)
    monkeypatch.setattr(build, "compiler", lambda: ["cc"])
    monkeypatch.setattr(build, "HERE", tmp_path / "gone")
    with pytest.raises(build.NotBuiltError, match="gone can't be written: No such file"):
        build.build()


def test_whoever_wants_no_kernels_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_NO_EXTENSION", "1")
    with pytest.raises(build.NotBuiltError, match="WINNOW_NO_EXTENSION is set"):
        build.build()


@compiled
def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.is_fresh()
    monkeypatch.setattr(build, "fingerprint", lambda: "of other sources")
    with pytest.raises(build.NotBuiltError, match=r"other sources; with a C compiler, python .*build\.py makes it"):
        library.load.__wrapped__()


def test_where_there_are_no_kernels_pytorch_alone_serves_and_says_so_once(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(library, "missing", lambda: "nobody compiled them")
    choice._tell_that_it_could_be_faster.cache_clear()
    with ops.use("auto"):
        assert [ops.backend_of(torch.zeros(1)) for _ in range(2)] == ["torch", "torch"]
    assert [record.message.endswith("not there: nobody compiled them") for record in caplog.records] == [True]


@compiled
@pytest.mark.parametrize("instructions", library.able() if library.missing() is None else ())
def test_every_instruction_set_gives_the_same(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_CPU", instructions)
    library.kernel.cache_clear()
    values, places = torch.randn(2, 41, 3, 43), torch.rand(2, 9, 3, 2, 4, 2) * 2 - 0.5
    weights, came = torch.rand(2, 9, 3, 2, 4), torch.randn(2, 9, 129)
    found = [cpu.sample(values, SHAPES, places, weights), *cpu.sample_backward(came, values, SHAPES, places, weights)]
    exact = [each.double() for each in (values, places, weights)]
    wanted = [plain.sample(exact[0], SHAPES, *exact[1:]),
              *plain.sample_backward(came.double(), exact[0], SHAPES, *exact[1:])]
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs.float(), atol=1e-5 * theirs.abs().max().item(), rtol=0)
    library.kernel.cache_clear()


@compiled
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_what_torch_makes_by_default_is_nothing_to_the_kernels(default: torch.dtype) -> None:
    values, places = torch.randn(1, 41, 2, 8), torch.rand(1, 5, 2, 2, 4, 2)
    weights, came, maps, filters = torch.rand(1, 5, 2, 2, 4), torch.randn(1, 5, 16), torch.randn(1, 16, 9, 9), \
        winograd.prepared(torch.randn(32, 16, 3, 3))

    def found() -> list[torch.Tensor]:
        return [cpu.sample(values, SHAPES, places, weights), cpu.splat(SHAPES, places, weights),
                *cpu.sample_backward(came, values, SHAPES, places, weights),
                winograd.convolve(maps, filters, None, relu=False),
                winograd.convolve_once(torch.cat([maps, maps]), torch.ones(32, 16, 3, 3))]

    wanted, before = found(), torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found(), wanted, strict=True))
    finally:
        torch.set_default_dtype(before)


@compiled
def test_an_instruction_set_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_CPU", "abacus")
    with pytest.raises(UsageError, match="WINNOW_CPU is abacus, but the kernels of this machine are portable"):
        library.instructions()
