"""Whether tensors fit each other: kernels trust what they are told, and would read or write beyond them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..structures import Shapes


def check(shapes: Shapes, tensors: Mapping[str, Tensor]) -> None:
    """ValueError unless tensors, by their roles, are on one device and fit levels of these shapes and each other.

    Their first three dimensions are images, queries or tokens, and heads, of which whole tokens and references have
    one. `places` are (B, Q, M, L, P, 2); values are those of the levels that `tokens` are not of.
    """
    images, queries, heads, *rest = places = tuple(tensors["places"].shape)
    if len(rest) != 3 or rest[0] != len(shapes) or rest[2] != 2 or not rest[0] * rest[1]:
        raise ValueError(f"places have shape (B, Q, M, L, P, 2), at least one of each head, got {places} for "
                         f"{len(shapes)} levels")
    devices = {role: str(x.device) for role, x in tensors.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"tensors must be on one device, got {devices}")
    tokens, whole = sum(h * w for h, w in shapes), tensors["tokens"].shape[1] if "tokens" in tensors else 0
    asked = (images, queries, heads)
    for role, first, row in (("values", (images, tokens - whole, heads), None), ("tokens", (images, whole, 1), None),
                             ("keys", (images, tokens, heads), None),
                             ("weights", asked, rest[0] * rest[1]), ("rows", asked, None),
                             ("reference", (images, queries, 1), None)):
        x = tensors.get(role)
        if x is not None and (x.shape[:3] != first or row not in (None, x.shape[3:].numel())):
            raise ValueError(f"{role} {tuple(x.shape)} do not fit places {places} on levels of {shapes}")
    for role in ("rows", "keys"):
        if role in tensors and tensors[role].shape[-1] != tensors["values"].shape[-1]:
            raise ValueError(f"{role} of {tensors[role].shape[-1]} channels do not fit values of "
                             f"{tensors['values'].shape[-1]}")
    if "reference" in tensors and tensors["reference"].shape[3:] not in ((rest[0], 2), (rest[0], 4)):
        raise ValueError(f"a reference is (B, Q, L, 2 | 4), got {tuple(tensors['reference'].squeeze(2).shape)}")
