"""A starting model without pre-training: a plain Hugging Face Llama around a given tokenizer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from spyhop.lazy import CausalLM, torch, transformers
from spyhop.models.folder import load_tokenizer
from spyhop.models.local import FORMAT_FILE
from spyhop.render import FORMATS, ChatFormat, Renderer
from spyhop.schema import Config
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.store import Artifact

PAD_TOKEN = "[[PAD]]"
"""The padding token that the Orca paper adds to the LLaMA tokenizer (section 3.2)."""
POSITION_BIAS = math.sqrt(24.0)
"""Size of a positional bias: enough for a head to prefer one distance, little enough to unlearn."""


class NewModelConfig(Config):
    """Shape of a new Llama model. Every attribute is an ordinary Hugging Face configuration."""

    format: Literal["orca", "turns"] = "orca"
    """The format of conversation that the model will be trained in."""
    hidden_size: int = Field(128, gt=0)
    """Hidden size."""
    intermediate_size: int = Field(384, gt=0)
    """Hidden size of the feed-forward layers."""
    num_layers: int = Field(4, gt=0)
    """Number of layers."""
    num_heads: int = Field(4, gt=0)
    """Number of attention heads."""
    max_positions: int = Field(2048, gt=0)
    """Longest sequence in tokens."""
    rope_theta: float = Field(10_000.0, gt=0)
    """Base of the rotary position embedding."""
    tie_embeddings: bool = True
    """Share weights between the input and output embeddings."""
    previous_token_heads: int = Field(0, ge=0)
    """Heads of the first layer whose query and key biases start out preferring 1, 2, ... tokens
    back (ordinary learned parameters afterwards). A tiny model learns to copy sooner
    with them."""
    seed: int = 0
    """Random seed of the weights."""

    @model_validator(mode="after")
    def _heads_fit(self) -> NewModelConfig:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size = {self.hidden_size} is no multiple of twice num_heads = "
                f"{self.num_heads}"
            )
        if self.previous_token_heads > self.num_heads:
            raise ValueError("previous_token_heads is more than num_heads")
        return self


def plan_new_model(config: NewModelConfig, tokenizer: Estimate) -> Estimate:
    """Return the shape of the model without its vocabulary."""
    inner = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    return Estimate(
        seconds=2,
        parameters=config.num_layers * inner,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
    )


@stage(version=1, writes=FOLDER, plan=plan_new_model, needs="local")
def new_model(ctx: Context, config: NewModelConfig, *, tokenizer: Artifact) -> None:
    """Write a randomly initialised Llama and its tokenizer as a Hugging Face folder."""
    words = load_tokenizer(tokenizer.path)
    add_padding(words)
    torch.manual_seed(config.seed)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            max_position_embeddings=config.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=config.tie_embeddings,
            attention_bias=config.previous_token_heads > 0,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    for head in range(config.previous_token_heads):
        _look_back(model, head, distance=head + 1, theta=config.rope_theta)
    ctx.count("parameters", model.num_parameters())
    ctx.count("vocabulary", len(words))
    save(ctx.out, model, words, FORMATS[config.format])


def add_padding(tokenizer: Any) -> None:  # noqa: ANN401 (transformers' type)
    """Give the tokenizer a padding token of its own unless it has one."""
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})


def save(folder: Path, model: CausalLM, tokenizer: Any, chat_format: ChatFormat) -> None:  # noqa: ANN401
    """Write a Hugging Face folder that also names the format of its conversations."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.chat_template = Renderer(tokenizer, chat_format).chat_template()
    tokenizer.save_pretrained(folder)
    values = chat_format.model_dump(exclude_defaults=True)
    (folder / FORMAT_FILE).write_text(json.dumps({"format": values}, indent=1))


def _look_back(model: CausalLM, head: int, *, distance: int, theta: float) -> None:
    """Make a head of the first layer prefer the token `distance` back, through its biases alone.

    Rotary positions turn the query bias at position i and the key bias at j into a score that
    depends on i - j only, and is largest where i - j = distance.
    """
    attention = model.model.layers[0].self_attn
    half = attention.head_dim // 2
    angles = distance * theta ** (-torch.arange(half) / half)
    rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
    query = torch.cat([angles.cos(), -angles.sin()])
    key = torch.cat([torch.ones(half), torch.zeros(half)])
    attention.q_proj.bias.data[rows] = POSITION_BIAS * query
    attention.k_proj.bias.data[rows] = POSITION_BIAS * key
