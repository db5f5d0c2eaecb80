"""Several processes that train one model together: FSDP2, started with torchrun.

Every process holds a share of each weight (and of its gradient and optimiser state), and takes a
share of each step's rows. One process needs none of it and pays for none.
"""

from __future__ import annotations

import json
import os
import re
import shlex
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


def num_ranks(runtime: Runtime) -> int:
    """Return how many processes a training is spread over."""
    return runtime.gpus * max(1, len(runtime.hosts))


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
    for layer in _layers(causal):
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


def _layers(causal: Any) -> list[Any]:  # noqa: ANN401 (transformers' type)
    """Return the decoder's layers: the longest list of modules."""
    modules = causal.base_model.modules()
    return max((list(m) for m in modules if isinstance(m, torch.nn.ModuleList)), key=len)


def launch(module: str, job: Path, runtime: Runtime) -> Iterator[dict[str, Any]]:
    """Run `python -m module job` in every rank and yield the news that they write.

    On several hosts torchrun is started through `ssh`, so each must reach the same files under the
    same paths. The ranks end when this process does, however it ends: their standard input closes.

    Raises:
        TrainingError: If a rank fails without having said why.
    """
    threads = {"OMP_NUM_THREADS": str(runtime.threads)}
    path = job.with_name(LOG)
    with path.open("w+") as log:
        started = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log if place else subprocess.PIPE,  # the first node has the first rank
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **threads},
            )
            for place, command in enumerate(_commands(module, job, runtime))
        ]
        try:
            assert started[0].stdout is not None
            for line in started[0].stdout:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
                else:
                    log.write(line)
                    log.flush()
            code = max(abs(process.wait()) for process in started)
        finally:
            for process in started:
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
                process.terminate()
            for process in started:
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


def _commands(module: str, job: Path, runtime: Runtime) -> list[list[str]]:
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={runtime.gpus}"]
    what = ["-m", module, str(job)]
    if not runtime.hosts:
        return [[*run, "--standalone", *what]]
    port = 20_000 + os.getpid() % 20_000
    many = [f"--nnodes={len(runtime.hosts)}", f"--master-addr={runtime.hosts[0]}"]
    kept = [f"{name}={os.environ[name]}" for name in ("PYTHONPATH",) if name in os.environ]
    kept.append(f"OMP_NUM_THREADS={runtime.threads}")
    return [
        ["ssh", host, shlex.join(["env", *kept, *run, *many, f"--master-port={port}",
                                  f"--node-rank={number}", *what])]
        for number, host in enumerate(runtime.hosts)
    ]  # fmt: skip
