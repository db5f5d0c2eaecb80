"""Low-rank adapters (LoRA), on whole or on four-bit weights (QLoRA), through peft.

Source: Hu et al. (arXiv:2106.09685); Dettmers et al. (arXiv:2305.14314).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from spyhop.lazy import missing, safe, torch, transformers
from spyhop.schema import Config, TrainingError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER = "adapter"
"""Beside the merged weights: the adapter alone, as peft writes it."""


class AdapterConfig(Config):
    """Adapters to train. The result is a merged model, with the adapter in its own folder."""

    rank: int = Field(16, ge=1)
    """Rank of the adapter matrices."""
    alpha: int = Field(32, gt=0)
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the adapter's input."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers to adapt; `all-linear` is every linear layer except the output head."""
    quantize: Literal["nf4"] | None = None
    """Keep the base's weights in four bits (QLoRA); needs one CUDA GPU and bitsandbytes."""


def check_adapter(config: AdapterConfig, num_ranks: int, device: torch.device) -> None:
    """Refuse what cannot be had here."""
    if lack := missing("adapter", "lora"):
        raise TrainingError(lack)
    if config.quantize is None:
        return
    why = ""
    if num_ranks > 1:
        why = f"works on one GPU, the runtime asks for {num_ranks}; remove quantize, or set "
        why += "runtime.gpus = 1"
    elif device.type != "cuda":  # on a processor its four-bit product has no gradient
        why = f"needs a CUDA GPU, the runtime's device is {device.type}; remove quantize"
    else:
        why = missing("", "qlora").strip()
    if why:
        raise TrainingError(f"adapter.quantize = {config.quantize!r} {why}")


def loading(config: AdapterConfig | None) -> dict[str, Any]:
    """Return what loading the base takes besides: nothing, or how it is quantised."""
    if config is None or config.quantize is None:
        return {}
    how = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=config.quantize, bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    return {"quantization_config": how}


def adapted(model: Any, config: AdapterConfig) -> Any:  # noqa: ANN401 (transformers' type)
    """Return a peft model around `model`, whose own weights are frozen now."""
    import peft

    if config.quantize is not None:
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=False)
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    how = peft.LoraConfig(
        task_type="CAUSAL_LM", r=config.rank, lora_alpha=config.alpha,
        lora_dropout=config.dropout, target_modules=targets,
    )  # fmt: skip
    try:
        with warnings.catch_warnings():  # peft 0.21 asks transformers by names of the past
            warnings.simplefilter("ignore", FutureWarning)
            return peft.get_peft_model(model, how)
    except ValueError as error:
        known = sorted(
            {n.split(".")[-1] for n, m in model.named_modules() if "Linear" in str(type(m))}
        )
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"adapter.targets = {config.targets!r}: {reason:.120}; layers here: {', '.join(known)}"
        ) from None


def combine(first: Path, second: Path) -> None:
    """Make `second`, trained on the model that `first` was merged into, an adapter of its base.

    The ranks add up, so the result is exact: B1 A1 + B2 A2 = [B1 B2] [A1; A2].
    """
    abouts = [json.loads((path / CONFIG).read_text()) for path in (first, second)]
    parts = [safe.load_file(path / WEIGHTS) for path in (first, second)]
    ranks = [about["r"] for about in abouts]
    scales = [about["lora_alpha"] / about["r"] for about in abouts]
    combined = {}
    for name in sorted({*parts[0], *parts[1]}):
        is_down = ".lora_A." in name
        known = next(part[name] for part in parts if name in part)
        width = known.shape[1 if is_down else 0]
        shapes = [(rank, width) if is_down else (width, rank) for rank in ranks]
        own = [
            (part[name] if name in part else torch.zeros(shape)) * (1.0 if is_down else scale)
            for part, shape, scale in zip(parts, shapes, scales, strict=True)
        ]
        combined[name] = torch.cat(own, dim=0 if is_down else 1).contiguous()
    safe.save_file(combined, second / WEIGHTS, metadata={"format": "pt"})
    targets = [about["target_modules"] for about in abouts]
    names = {name for some in targets for name in ([some] if isinstance(some, str) else some)}
    about = {**abouts[1], "r": sum(ranks), "lora_alpha": sum(ranks)}
    about["target_modules"] = targets[0] if targets[0] == targets[1] else sorted(names)
    (second / CONFIG).write_text(json.dumps(about, indent=1))
