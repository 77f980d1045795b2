from __future__ import annotations

import pytest
import torch

from winnow.bench.worker import in_a_line
from winnow.errors import WinnowError


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                 "to allocate 119999997600000012 bytes. Error code 12 (Cannot allocate memory)"),
], ids=["Python's", "a GPU's", "a processor's"])
def test_short_memory_is_told_with_what_to_do(error: Exception) -> None:
    assert in_a_line(error) == "the memory does not suffice; try a smaller --size or --batch"


def test_our_own_words_stand_alone_and_others_with_the_kind_of_error() -> None:
    assert in_a_line(WinnowError("its boxes are not finite")) == "its boxes are not finite"
    assert in_a_line(KeyError("a\n b")) == "KeyError: 'a\\n b'"
