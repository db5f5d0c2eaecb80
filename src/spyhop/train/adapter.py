"""Low-rank adapters (LoRA), on whole or on four-bit weights (QLoRA), through peft.

Source: Hu et al. (arXiv:2106.09685); Dettmers et al. (arXiv:2305.14314).
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from spyhop.lazy import Lazy
from spyhop.schema import Config, TrainingError

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = Lazy("torch")
    transformers = Lazy("transformers")

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
    """Refuse what cannot be had here.

    Raises:
        TrainingError: If a library or GPU is absent, or four-bit weights meet several processes.
    """
    if find_spec("peft") is None:
        raise TrainingError("adapter needs peft: pip install 'spyhop[lora]'")
    if config.quantize is None:
        return
    if num_ranks > 1:
        raise TrainingError(
            f"adapter.quantize = {config.quantize!r} works on one GPU, the runtime asks for "
            f"{num_ranks}; leave quantize out, or set runtime.gpus = 1"
        )
    if device.type != "cuda":  # on a processor its four-bit product has no gradient
        raise TrainingError(
            f"adapter.quantize = {config.quantize!r} needs a CUDA GPU, the runtime's device is "
            f"{device.type}; leave quantize out"
        )
    if find_spec("bitsandbytes") is None:
        raise TrainingError(
            f"adapter.quantize = {config.quantize!r} needs bitsandbytes: "
            "pip install 'spyhop[qlora]', or leave quantize out"
        )


def loading(config: AdapterConfig | None) -> dict[str, Any]:
    """Return what loading the base takes besides: nothing, or how it is quantised."""
    if config is None or config.quantize is None:
        return {}
    how = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": how}


def adapted(model: Any, config: AdapterConfig) -> Any:  # noqa: ANN401 (transformers' type)
    """Return a peft model around `model`, whose own weights are frozen now."""
    import peft

    if config.quantize is not None:
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=False)
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    how = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
    )
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
