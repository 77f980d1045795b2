"""Steps that torch.compile keeps as they are: it joins what lies between them, and would compute them slower itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")


def kept(shape: Callable[..., Any], writes: tuple[str, ...] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """To torch.compile a function is one operator of its name; elsewhere it is called straight, which takes less time.

    shape   what it gives of the same arguments, in shape alone
    writes  the names of the arguments that it writes over
    """
    def named(function: Callable[P, R]) -> Callable[P, R]:
        operator = torch.library.custom_op(f"winnow::{function.__name__}", function, mutates_args=writes)
        operator.register_fake(shape)

        @wraps(function)
        def call(*given: P.args, **named: P.kwargs) -> R:
            return cast(R, operator(*given, **named)) if torch.compiler.is_compiling() else function(*given, **named)

        return call

    return named
