"""Attention that stays within each document of a packed sequence (G5).

A packed sequence is one row (1, T) of several documents, one after the other:

    reason = isolate(model, longest=2048)           # once; None, or why packing must not be used
    model(input_ids=ids_1T, **documents(model, lengths))      # lengths of the documents, sum T

`isolate` switches the model to our own attention function, registered with transformers as
`DOCUMENTS`, and proves on the model itself that no document feels its neighbours and that each is
read as if it were alone. Where the documents end travels with the call, in the place of the
attention mask: nothing is global, so gradient checkpointing, FSDP and threads see the same bounds.
A model in this mode that is called in the ordinary way (padded rows, generation) attends as with
`sdpa`.

On a GPU in half precision the documents go through `varlen_attn` (flash attention) in one call;
elsewhere one after the other through `scaled_dot_product_attention`. Window and scale are honoured;
soft caps, sinks and position biases are refused. Classes that do not use transformers' attention
interface (Falcon) are given a block mask instead, which costs memory and time with T x T.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from spyhop.lazy import CausalLM, Tensor, torch, transformers
from spyhop.schema import TrainingError

DOCUMENTS = "spyhop_documents"
"""Name of our attention among transformers' implementations."""
MOST_MOVED = 1e-5
"""Most that a logit may move when the neighbours are rewritten (float32)."""
ALONE_FRAC = {"float64": 1e-4, "float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}
"""Most that a logit may differ from the document alone, as a share of the largest logit: other
kernels and shapes round in another order."""
HEAD_DIMS = 256
"""Largest head that flash attention takes; sizes are multiples of 8."""
MOST_TOKENS = 512
"""Longest sequence of dense attention: the probabilities then take at most about a third of a
layer's memory."""
REFUSED = ("softcap", "s_aux", "position_bias")
"""Arguments of attention that some models pass and that this one does not support."""


def documents(model: CausalLM, lengths: Sequence[int]) -> dict[str, Any]:
    """Return the arguments that go with a packed sequence into the model's forward pass.

    Positions start at 0 in every document.
    """
    device = model.device
    positions = np.concatenate([np.arange(length) for length in lengths])
    if model.config._attn_implementation == DOCUMENTS:
        bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
        # A 4D mask passes through every model untouched. Its third size is the longest document,
        # which is so known without asking the GPU.
        mask = bounds.expand(1, 1, int(max(lengths)), -1)
    else:
        number = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
        mask = (number[:, None] == number[None, :]).tril()[None, None]
    position_ids = torch.from_numpy(positions)[None].to(device)
    return {"position_ids": position_ids, "attention_mask": mask, "use_cache": False}


def isolate(model: CausalLM, longest: int) -> str | None:
    """Make documents of a packed sequence blind to each other; return why this cannot be had.

    When it cannot, the model is left as it was.
    """
    before = model.config._attn_implementation
    alone = Probe(model, longest)
    switch(model)
    reason = alone.leak()
    if reason is not None and model.config._attn_implementation != before:
        model.set_attn_implementation(before)
    return reason


def switch(model: CausalLM) -> None:
    """Switch a model to our attention, where its class takes another one; no proof is made."""
    if model._can_set_attn_implementation():
        from transformers.masking_utils import sdpa_mask

        transformers.AttentionInterface.register(DOCUMENTS, _attend)
        transformers.AttentionMaskInterface.register(DOCUMENTS, sdpa_mask)
        model.set_attn_implementation(DOCUMENTS)


class Probe:
    """Three documents, read alone as the model is now, and later packed."""

    def __init__(self, model: CausalLM, longest: int) -> None:
        self._model = model
        config = model.config.get_text_config()
        names = ("sliding_window", "attention_chunk_size")
        window = min(getattr(config, name, None) or longest for name in names)
        first = max(2, min(longest, window + 16 if window < longest else 24))
        self._lengths = [first, max(2, min(longest, 17)), max(2, min(longest, 9))]
        ends = np.cumsum(self._lengths).tolist()
        self._places = [slice(e - n, e) for e, n in zip(ends, self._lengths, strict=True)]
        random = np.random.default_rng(0)
        size = model.get_input_embeddings().num_embeddings
        self._ids = random.integers(0, size, (2, ends[-1]))
        """As they are, and rewritten: no token stays."""
        self._ids[1] = (self._ids[0] + random.integers(1, size, ends[-1])) % size
        self._alone = [self._logits(self._ids[0][some]) for some in self._places]

    def leak(self) -> str | None:
        """Return how packed differs from alone; None where it does not."""
        try:
            packed = self._logits(self._ids[0], self._lengths)
            for place, (own, alone) in enumerate(zip(self._places, self._alone, strict=True)):
                rewritten = self._ids[1].copy()
                rewritten[own] = self._ids[0][own]
                moved = self._logits(rewritten, self._lengths)[own] - packed[own]
                if not (most := float(moved.abs().max())) <= MOST_MOVED:
                    return f"rewriting its neighbours moves a logit of a document by {most:.2g}"
                most = float((packed[own] - alone).abs().max())
                dtype = _autocast_dtype(self._model.device) or self._model.dtype
                allowed = ALONE_FRAC[str(dtype).removeprefix("torch.")]
                if not most <= allowed * max(1.0, float(alone.abs().max())):
                    return f"packed, a logit of document {place + 1} is {most:.2g} off from alone"
        except (TrainingError, RuntimeError, ValueError, TypeError, IndexError) as error:
            return f"packed, its forward pass fails: {str(error).strip().splitlines()[0]}"
        return None

    def _logits(self, ids: Any, lengths: Sequence[int] = ()) -> Tensor:  # noqa: ANN401 (numpy)
        how = documents(self._model, lengths) if lengths else {"use_cache": False}
        ids_1T = torch.from_numpy(ids)[None].to(self._model.device)
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                logits: Tensor = self._model(input_ids=ids_1T, **how).logits[0]
        finally:
            self._model.train(was_training)
        return logits.float()


def _autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the type that autocast computes in here; None where it is off."""
    is_auto = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if is_auto else None


def _attend(
    module: CausalLM,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **asked: Any,  # noqa: ANN401 (the model's own)
) -> tuple[Tensor, None]:
    """Attend within documents; query (1, heads, T, size) in, (1, T, heads, size) out."""
    window = asked.get("sliding_window")
    refused = [name for name in REFUSED if asked.get(name) is not None]
    if attention_mask is None or attention_mask.dtype != torch.int32:
        is_causal = asked.get("is_causal")
        is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        is_simple = is_causal and not refused and attention_mask is None
        if is_simple and _is_dense(query, key, value, dropout, window):
            return dense_attention(query, key, value, scaling).transpose(1, 2), None
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **asked
        )
        return plain
    if refused:
        raise TrainingError(f"packed attention does not do {refused[0]}")
    # Under autocast, rotary positions leave queries and keys in float32: flash takes none.
    dtype = _autocast_dtype(query.device) or query.dtype
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    bounds, size = attention_mask[0, 0, 0], query.shape[-1]
    is_half = dtype in (torch.bfloat16, torch.float16)
    if query.is_cuda and is_half and not dropout and size % 8 == 0 and size <= HEAD_DIMS:
        from torch.nn.attention.varlen import varlen_attn

        longest = attention_mask.shape[2]
        out = varlen_attn(
            query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1),
            bounds, bounds, longest, longest,
            scale=scaling, window_size=(window - 1 if window else -1, 0),
            enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        assert not isinstance(out, tuple)  # nothing besides was asked for
        return out[None], None
    spans = [slice(start, end) for start, end in pairwise(bounds.tolist())]
    parts = [
        one_document(query[:, :, s], key[:, :, s], value[:, :, s], dropout, scaling, window)
        for s in spans
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _is_dense(
    query: Tensor, key: Tensor, value: Tensor, dropout: float, window: int | None
) -> bool:
    tokens = query.shape[2]
    is_half = value.dtype in (torch.bfloat16, torch.float16)
    is_plain = not dropout and not (window and tokens > window) and tokens == key.shape[2]
    is_square = query.shape[-1] == value.shape[-1]
    return not query.is_cuda and is_half and is_plain and is_square and tokens <= MOST_TOKENS


def one_document(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Attend causally within one document, at most `window` tokens back."""
    if _is_dense(query, key, value, dropout, window):
        return dense_attention(query, key, value, scaling)
    mask = None
    if window and query.shape[2] > window:
        place = torch.arange(query.shape[2], device=query.device)
        distance = place[:, None] - place[None, :]
        mask = (distance >= 0) & (distance < window)
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling,
        is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def dense_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attend causally: query (B, H, T, D), key and value (B, K, T, D) -> (B, H, T, D).

    For short sequences in half precision on a processor, where PyTorch's flash attention takes more
    than twice the time of plain matrix products. Scores and probabilities are computed in float32;
    the result, and products with the probabilities, have the type of `value`. The probabilities are
    kept for the backward pass, so the memory grows with T x T.

    Shapes: B sequences, H heads, K key heads, G = H / K, T positions, D head size.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: Tensor = _dense_attention().apply(query, key, value, scale)
    return out


@cache
def _dense_attention() -> Any:  # noqa: ANN401 (made at first use: PyTorch is heavy)
    class DenseAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:  # noqa: ANN401
            B, H, T, D = query.shape
            K, dtype = key.shape[1], value.dtype
            query_GTD = query.reshape(B, K, H // K * T, D)
            with torch.autocast(query.device.type, enabled=False):
                scores = (query_GTD.float() * scale) @ key.float().transpose(-1, -2)
                future = torch.full((T, T), float("-inf"), device=query.device).triu_(1)
                scores.view(B, H, T, T).add_(future)
                probs = torch.softmax(scores, -1).to(dtype)
                out = probs @ value
            ctx.save_for_backward(query_GTD.to(dtype), key.to(dtype), value, probs)
            ctx.scale, ctx.dtypes = scale, (query.dtype, key.dtype)
            return out.view(B, H, T, D)

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
            query, key, value, probs = ctx.saved_tensors
            slope_GTD = slope.reshape(query.shape)
            value_slope = probs.transpose(-1, -2) @ slope_GTD
            probs_slope = slope_GTD @ value.transpose(-1, -2)
            scores_slope = torch._softmax_backward_data(probs_slope, probs, -1, probs.dtype)
            key_slope = (scores_slope.transpose(-1, -2) @ query).to(ctx.dtypes[1]).mul_(ctx.scale)
            query_slope = (scores_slope @ key).to(ctx.dtypes[0]).mul_(ctx.scale)
            return query_slope.view(slope.shape), key_slope, value_slope, None

    return DenseAttention
