"""Several processes that train one model together: FSDP2, started with torchrun.

Every process holds a share of each weight (and of its gradient and optimiser state), and takes a
share of each step's rows. One process needs none of it and pays for none.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spyhop.lazy import Tensor, dist, fsdp, torch, whole
from spyhop.models.local import pick_device
from spyhop.runtime import Runtime
from spyhop.schema import TrainingError

MARK = "spyhop-news "
"""Opens a line of a rank's output that is meant for the process that started it."""
LOG = "processes.log"
"""All else that the processes of a training said, beside its job."""
_REASON = re.compile(r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*|.*Signal \d+ .*)")
"""Opens the last line of a traceback; or torchrun's report of a process that was killed."""
_SIGNAL = re.compile(r"Signal (\d+) ")


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

    def whole_state(self, model: Any) -> dict[str, Any] | None:  # noqa: ANN401
        """Return all weights in the first process's memory; None where they are there anyway."""
        if self.size == 1:
            return None
        options = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)
        return whole.get_model_state_dict(model, options=options)


@contextmanager
def joined(runtime: Runtime) -> Iterator[Group]:
    """Join the group that torchrun started this process for."""
    local, rank, size = (int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))
    device = pick_device(runtime.device)
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(device, rank, size)
    finally:
        dist.destroy_process_group()


def shard(causal: Any, model: Any, group: Group, *, is_half: bool, method: str) -> None:  # noqa: ANN401
    """Spread a model over the group, each decoder layer on its own.

    Args:
        causal: The causal language model, the root; `method` of it is called in training.
        model: It, or peft's model around it: it has the weights in the first process, and is empty
            (on the `meta` device) in the others.
        group: The processes.
        is_half: Compute in bfloat16; weights and sums of gradients stay float32.
        method: Name of the method that gathers weights like `forward` does.
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


def launch(module: str, job: Path, runtime: Runtime) -> Iterator[dict[str, Any]]:
    """Run `python -m module job` in every rank and yield the news that they write.

    The ranks end when this process does, however it ends: their standard input closes.

    Raises:
        TrainingError: If a rank fails without having said why.
    """
    path = job.with_name(LOG)
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={runtime.gpus}", "--standalone"]
    with path.open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *torchrun, "-m", module, str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(runtime.threads)},
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
                else:
                    log.write(line)
                    log.flush()
            code = abs(process.wait())
        finally:
            process.stdin.close()
            process.stdout.close()
            process.terminate()
            process.wait()
    if code:
        raise _failure(path, code)


def _failure(log: Path, code: int) -> TrainingError:
    """Return the first reason that the processes gave, with all they said as a note."""
    text = log.read_text(errors="replace")
    reasons = [found[1] for line in text.splitlines() if (found := _REASON.match(line))]
    signals = [each for each in reasons if (found := _SIGNAL.search(each)) and found[1] != "15"]
    reason = (signals or reasons or [f"exit code {code}"])[0].strip()  # 15: ended with the others
    error = TrainingError(f"a process of the training failed: {reason:.300} (all it said: {log})")
    error.add_note(text)
    return error
