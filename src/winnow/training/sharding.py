"""One model, divided among the processes (FSDP2): each holds a part of every weight and borrows the others.

What is saved is whole, so that it does not matter how many processes take it up.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from .. import processes
from ..errors import UsageError
from .engine import blocks

Value = TypeVar("Value")


def divide(detector: nn.Module, accelerator: Accelerator) -> None:
    """Divide each block's weights among the processes, and then all others; everybody starts with the main one's."""
    if not processes.several():
        raise UsageError("shard divides a model among several processes, and there is one; start it by torchrun or "
                         "accelerate launch, or leave shard out")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # of outputs changed in place, which none is
    detector.to(accelerator.device)
    for value in (*detector.parameters(), *detector.buffers()):
        dist.broadcast(value.data, 0)
    mesh = init_device_mesh(accelerator.device.type, (processes.world(),))
    for block in blocks(detector):
        fully_shard(block, mesh=mesh)
    fully_shard(detector, mesh=mesh)


def whole(state: Value) -> Value:
    """Plain data with the tensors that were divided put together again; every process has to ask."""
    return tree_map(lambda value: value.full_tensor() if isinstance(value, DTensor) else value, state)  # type: ignore[no-any-return]


def like(value: Any, own: Tensor) -> Any:
    """A whole tensor divided as another one is, if it is; anything else as it is."""
    if isinstance(own, DTensor) and isinstance(value, Tensor) and value.shape == own.shape:
        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    return value


def load_weights(module: nn.Module, state: dict[str, Any]) -> None:
    """Take up whole weights, divided as the module's are."""
    own = module.state_dict()
    module.load_state_dict({name: like(value, own[name]) if name in own else value for name, value in state.items()})


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take up an optimizer's whole state, divided as its parameters are."""
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {place: {key: like(value, own[place]) for key, value in of_one.items()}
             for place, of_one in state["state"].items()}
    optimizer.load_state_dict(state | {"state": parts})


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
