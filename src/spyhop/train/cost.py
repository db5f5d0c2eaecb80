"""Cost of training: floating-point operations, device hours at a stated utilisation, memory.

A token costs 6 operations per parameter, 2 forward and 4 backward (Kaplan et al.,
arXiv:2001.08361); attention adds to that with the length of the rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from spyhop.lazy import CausalLM, torch
from spyhop.models.folder import check_class, check_weights
from spyhop.runtime import Runtime
from spyhop.schema import InputError, ModelError
from spyhop.stage import Estimate
from spyhop.train.tensors import read_header

TFLOPS = {"B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0,
          "L40S": 362.0, "L4": 121.0, "A10": 125.0, "V100": 125.0, "T4": 65.0}  # fmt: skip
"""Dense half-precision peak of a device whose name holds the word, in 10^12 operations per second,
from the makers' data sheets."""
FEWEST_STEPS = 30
"""Optimizer steps below which a training hardly moves its model."""
CORE_FLOPS = 40e9
"""Operations per second of a processor core on models above some million parameters."""
FLOPS_PER_PARAMETER = 6
STATE_BYTES = 16
"""Per trained parameter: weight, gradient and the two moments of AdamW, in float32."""
HALF_BYTES = 2
"""Per parameter: the copy that is computed with in bfloat16, where there is one."""
NF4_BYTES = 0.6
"""Per frozen parameter of four bits, with its scales and the layers that stay wider."""
ACTIVATION_BYTES = 34
"""Per token, layer and hidden unit, without recomputation (Korthikanti et al., arXiv:2205.05198,
section 4.1, without the part of the attention weights, which are never stored)."""
RECOMPUTED_BYTES = 4
PLAN_GPU, PLAN_MFU, PLAN_GB = "H100", 0.4, 80
"""Assumptions used in cost estimates: 40 % is usual for models of 1 to 13 billion parameters."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The figures of a model that its cost depends on."""

    parameters: int
    num_layers: int = 0
    hidden_size: int = 0

    def flops_per_token(self, row_tokens: float = 0.0) -> float:
        """Return the operations of training on a token of a row of that length."""
        attention = 6 * self.num_layers * self.hidden_size * row_tokens  # causal: half of 12 L D T
        return FLOPS_PER_PARAMETER * self.parameters + attention


def shape_of(model: CausalLM) -> Shape:
    """Return the shape of a loaded model. An input embedding that only looks up is not counted."""
    config = model.config.get_text_config()
    total = sum(parameter.numel() for parameter in model.parameters())
    inner, outer = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    looked_up = 0 if inner is outer else inner.numel()
    depth, width = (getattr(config, name, 0) or 0 for name in ("num_hidden_layers", "hidden_size"))
    return Shape(total - looked_up, int(depth), int(width))


def read_shape(folder: Path) -> Shape | None:
    """Return the shape of a Hugging Face folder; None where it is none.

    Only the config and the heads of the weights' files are read.

    Raises:
        InputError: If one of these is damaged.
        ModelError: If its weights are pickled, or have no config.
    """
    files, path = sorted(folder.glob("*.safetensors")), folder / "config.json"
    if files and not path.is_file():
        raise ModelError(f"{folder}: weights without a config.json; copy the base's own there")
    if path.is_file():
        check_weights(folder)
    if not files:
        return None
    try:
        config = json.loads(path.read_bytes())
        check_class(folder, config)
        config = config.get("text_config", config)
        depth, width = (int(config.get(name, 0)) for name in ("num_hidden_layers", "hidden_size"))
    except (ValueError, AttributeError, TypeError):
        raise InputError(f"{path}: not a model's config") from None
    sizes = {each.name: prod(each.shape) for file in files for each in read_header(file).tensors}
    if any("lm_head" in name for name in sizes):  # else one table looks up and is computed with
        sizes = {name: size for name, size in sizes.items() if "embed_tokens" not in name}
    return Shape(sum(sizes.values()), depth, width)


def describe_cost(estimate: Estimate, runtime: Runtime) -> str:
    """Describe the cost of a planned training; empty where its model is unknown."""
    if not estimate.flops:
        return ""
    hours = gpu_hours(estimate.flops, TFLOPS[PLAN_GPU], PLAN_MFU)
    kept = activation_bytes(estimate.num_layers, estimate.hidden_size, runtime)
    room = int(PLAN_GB * 1e9) - kept
    num = -(-estimate.state_bytes // room) if room > 0 else 0
    fit = f"needs {num} of {PLAN_GB} GB together" if num else f"fits none of {PLAN_GB} GB"
    lower = "microbatch_tokens" if runtime.gradient_checkpointing else "gradient_checkpointing"
    return (
        f"{estimate.parameters / 1e6:,.1f} M parameters x {estimate.trained_tokens / 1e6:,.1f} M "
        f"tokens = {estimate.flops:.2g} operations: {hours:,.2g} {PLAN_GPU}-hours at "
        f"{PLAN_MFU:.0%} of its peak; {estimate.state_bytes / 1e9:,.1f} GB of weights and "
        f"optimiser, {kept / 1e9:,.1f} GB a pass of {runtime.microbatch_tokens:,} tokens: "
        + (f"fits one of {PLAN_GB} GB" if num == 1 else f"{fit}; see runtime.{lower}")
    )


def peak_flops(runtime: Runtime, device: torch.device) -> float | None:
    """Return a device's peak in operations per second; None where it is unknown."""
    if runtime.peak_tflops is not None:
        return runtime.peak_tflops * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for word, peak in TFLOPS.items() if word in name), None)


def gpu_hours(flops: float, tflops: float, mfu_frac: float) -> float:
    """Return the hours that one device takes for this many operations."""
    return flops / (tflops * 1e12 * mfu_frac) / 3600


def state_bytes(shape: Shape, trained: int | None = None, frozen_bytes: float = 4) -> int:
    """Return the memory of weights, gradients and optimiser; a group of devices shares it."""
    trained = shape.parameters if trained is None else trained
    frozen = shape.parameters - trained
    return trained * (STATE_BYTES + HALF_BYTES) + int(frozen * frozen_bytes)


def activation_bytes(num_layers: int, hidden_size: int, runtime: Runtime) -> int:
    """Return the memory that one pass keeps for its gradient, on every device."""
    per_unit = RECOMPUTED_BYTES if runtime.gradient_checkpointing else ACTIVATION_BYTES
    return per_unit * num_layers * hidden_size * runtime.microbatch_tokens
