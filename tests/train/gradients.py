"""The gradient of one batch of eight rows, cut in every way; as a script, by several processes."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, LlamaConfig

from spyhop.stage import Runtime
from spyhop.train.base import _set_dropout
from spyhop.train.distributed import Group, joined
from spyhop.train.engine import Engine, TrainingResult
from spyhop.train.objective import CrossEntropy
from spyhop.train.rows import TokenRows

CPU = Runtime(device="cpu")
LENGTHS = [40, 3, 17, 25, 8, 31, 12, 5]
WAYS = {
    "1 x 8": {"microbatch_tokens": 10_000},
    "8 x 1": {"microbatch_tokens": 64},
    "packed": {"microbatch_tokens": 10_000, "packing": "on"},
    "packed in parts": {"microbatch_tokens": 64, "packing": "on"},
    "computed twice": {"microbatch_tokens": 10_000, "gradient_checkpointing": True},
    "packed, computed twice": {"packing": "on", "gradient_checkpointing": True},
}
TIED = ("tied llama", "tied gemma", "tied gpt2")
BOUNDS = {torch.float32: 2e-6, torch.float64: 1e-12}
"""Of the gradient's norm, between any two ways."""


@dataclass
class _Student:
    model: Any

    @property
    def causal(self) -> Any:
        return self.model


def toy_model(dtype: torch.dtype, kind: str = "llama") -> Any:
    """A tiny model; `kind` is a key of `TIED`, whose embeddings are tied, or `llama`."""
    torch.manual_seed(0)
    common = {
        "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "initializer_range": 0.2, "tie_word_embeddings": kind != "llama",
    }  # fmt: skip
    if kind == "tied gpt2":
        small = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        shape: Any = GPT2Config(vocab_size=500, initializer_range=0.2, bos_token_id=None, **small)
    else:
        shape = (GemmaConfig if kind == "tied gemma" else LlamaConfig)(**common)
        shape.head_dim = 8
    model = AutoModelForCausalLM.from_config(shape).to(dtype)
    _set_dropout(model, 0.0)
    return model


def token_rows() -> TokenRows:
    source = np.random.default_rng(0)
    total = sum(LENGTHS)
    is_supervised = source.random(total) < 0.4
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    is_supervised[starts[1:] - 1] = True
    ids = source.integers(0, 500, total).astype(np.int32)
    numbers = np.arange(len(LENGTHS))
    return TokenRows(ids, is_supervised, starts, [0, len(LENGTHS)], numbers)


def plain_gradient(kind: str = "llama") -> torch.Tensor:
    """Row by row in float64, with the model's own loss over its own logits."""
    model, rows = toy_model(torch.float64, kind), token_rows()
    bounds = list(zip(rows.starts, rows.starts[1:], strict=False))
    num = sum(int(rows.is_supervised[a + 1 : b].sum()) for a, b in bounds)
    for a, b in bounds:
        ids = torch.from_numpy(rows.ids[a:b].astype(np.int64))[None]
        logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        picked = logs.gather(1, ids[0, 1:, None])[:, 0]
        (-picked[torch.from_numpy(rows.is_supervised[a + 1 : b])].sum() / num).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]


def gradient(
    runtime: Runtime,
    dtype: torch.dtype = torch.float64,
    precision: str = "float32",
    group: Group | None = None,
    objective: Callable[[TokenRows], Any] = CrossEntropy,
    kind: str = "llama",
) -> torch.Tensor:
    """Return the engine's gradient of the eight rows, cut as the runtime says."""
    group = group or Group(torch.device("cpu"))
    model = toy_model(dtype, kind)
    if group.rank:
        model.to("meta")  # type: ignore[arg-type]
    rows = token_rows()
    every = np.arange(len(LENGTHS))
    outcome = TrainingResult()
    engine = Engine(
        objective(rows), _Student(model), group, runtime, outcome,  # type: ignore[arg-type]
        precision=precision, longest=max(LENGTHS),  # type: ignore[arg-type]
    )  # fmt: skip
    assert not outcome.notices
    model.train()
    _, num_terms, _ = engine.gradient(every)
    if objective is CrossEntropy:
        assert num_terms == sum(
            int(rows.is_supervised[a + 1 : b].sum())
            for a, b in zip(rows.starts, rows.starts[1:], strict=False)
        )
    found: list[Any] = [p.grad for p in model.parameters()]
    whole = found if group.size == 1 else [each.full_tensor() for each in found]
    return torch.cat([each.flatten() for each in whole])


def main(out: Path) -> None:
    """Take part in the gradient of every way; the first process writes them."""
    with joined(CPU) as group:
        made = {
            (way, dtype): gradient(CPU.model_copy(update=cut), dtype, group=group)
            for way, cut in WAYS.items()
            for dtype in BOUNDS
        }
        made |= {
            (kind, dtype): gradient(CPU, dtype, group=group, kind=kind)
            for kind in TIED
            for dtype in BOUNDS
        }
        if group.rank == 0:
            torch.save((group.size, made), out)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
