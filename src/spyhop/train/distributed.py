"""Several processes that train one model together: FSDP2, started with torchrun.

Every process holds a share of each weight (and of its gradient and optimiser state), and takes a
share of each step's rows. One process needs none of it and pays for none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from spyhop.lazy import CausalLM, Tensor, dist, fsdp, torch, whole
from spyhop.models.local import pick_device
from spyhop.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of one training, seen from one of them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
            value = value / self.size
        return float(value)

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            dist.barrier()

    def tell(self, value: Any) -> Any:  # noqa: ANN401 (anything that pickles)
        """Return the first process's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def whole_state(self, model: CausalLM) -> dict[str, Any] | None:
        """Return all weights in the first process's memory; None where they are there anyway."""
        if self.size == 1:
            return None
        options = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)
        return whole.get_model_state_dict(model, options=options)


@contextmanager
def joined(runtime: Runtime, store: Any = None) -> Iterator[Group]:  # noqa: ANN401 (torch's type)
    """Join the group that torchrun started this process for; `store` is where its members meet."""
    local, rank, size = (int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))
    device = pick_device(runtime.device)
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield Group(device, rank, size)
    finally:
        dist.destroy_process_group()


def shard(causal: CausalLM, model: CausalLM, group: Group, *, is_half: bool, method: str) -> None:
    """Spread a model over the group, each decoder layer on its own.

    `model` is `causal`, or peft's model around it: it has the weights in the first process, and is
    empty (on the `meta` device) in the others. With `is_half`, computing is in bfloat16; weights
    and sums of gradients stay float32. `method` of `causal` gathers weights like `forward` does.
    """
    state = model.state_dict() if group.rank == 0 else {}
    buffers = {name: buffer for name, buffer in model.named_buffers()}
    dtypes = (torch.bfloat16, torch.float32) if is_half else (None, None)
    policy = fsdp.MixedPrecisionPolicy(param_dtype=dtypes[0], reduce_dtype=dtypes[1])
    mesh = dist.device_mesh.init_device_mesh(group.device.type, (group.size,))
    if group.rank == 0:
        model.to("meta")
    causal.tie_weights()  # a move to another device makes two weights of a tied one
    lists = [m for m in causal.base_model.modules() if isinstance(m, torch.nn.ModuleList)]
    for layer in max(lists, key=len):  # the decoder's layers
        fsdp.fully_shard(layer, mesh=mesh, mp_policy=policy)
    fsdp.fully_shard(causal, mesh=mesh, mp_policy=policy)
    fsdp.register_fsdp_forward_method(causal, method)
    model.to_empty(device=group.device)
    causal.tie_weights()
    options = whole.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    whole.set_model_state_dict(model, state, options=options)
    for name, buffer in model.named_buffers():  # rotary frequencies: no part of the state
        if group.rank == 0:
            buffer.copy_(buffers[name])
        dist.broadcast(buffer, 0)
