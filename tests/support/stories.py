"""A genuine small base model: llama2.c's stories260K, converted to a Hugging Face folder."""

import struct
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<unk>", "<s>", "</s>")


def write_stories(data: Path, folder: Path) -> Path:
    """Write the model and its tokenizer to `folder` and return it."""
    source = data / "tiny_models" / "stories260K"
    model = _model((source / "stories260K.bin").read_bytes())
    model.save_pretrained(folder)
    _tokenizer((source / "tok512.bin").read_bytes()).save_pretrained(folder)
    return folder


def known_opening(data: Path) -> str:
    """Return the greedy text that its authors publish."""
    page = (data / "tiny_models" / "stories260K" / "stories260K.md").read_text()
    return page.split("-t 0.0\n", 1)[1].split("\n```", 1)[0]


def _model(data: bytes) -> LlamaForCausalLM:
    dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("<7i", data[:28])
    numbers = torch.from_numpy(np.frombuffer(data, "<f4", offset=28).copy())
    size, place = dim // heads, count()
    starts = [0]

    def take(*shape: int) -> torch.Tensor:
        next(place)
        first = starts[-1]
        starts.append(first + int(np.prod(shape)))
        return numbers[first : starts[-1]].reshape(shape)

    names = {
        "model.embed_tokens.weight": take(vocab, dim),
    }
    parts = {
        "input_layernorm": take(layers, dim),
        "self_attn.q_proj": _halves(take(layers, heads * size, dim), heads),
        "self_attn.k_proj": _halves(take(layers, kv_heads * size, dim), kv_heads),
        "self_attn.v_proj": take(layers, kv_heads * size, dim),
        "self_attn.o_proj": take(layers, dim, heads * size),
        "post_attention_layernorm": take(layers, dim),
        "mlp.gate_proj": take(layers, hidden, dim),
        "mlp.down_proj": take(layers, dim, hidden),
        "mlp.up_proj": take(layers, hidden, dim),
    }
    for name, stacked in parts.items():
        for layer in range(layers):
            names[f"model.layers.{layer}.{name}.weight"] = stacked[layer]
    names["model.norm.weight"] = take(dim)
    shape = LlamaConfig(
        vocab_size=vocab, hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=length,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    missing, unexpected = model.load_state_dict(names, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model.eval()


def _halves(stacked: torch.Tensor, heads: int) -> torch.Tensor:
    """Order rotary pairs as transformers does: first halves, then second halves."""
    layers, rows, dim = stacked.shape
    pairs = stacked.reshape(layers, heads, rows // heads // 2, 2, dim)
    return pairs.transpose(2, 3).reshape(layers, rows, dim)


def _tokenizer(data: bytes) -> Any:
    scores: dict[str, float] = {}
    place = 4
    while place < len(data):
        score, size = struct.unpack_from("<fi", data, place)
        text = data[place + 8 : place + 8 + size].decode().replace(" ", "\u2581")
        number = len(scores)
        scores[SPECIAL[number] if number < len(SPECIAL) else text] = score
        place += 8 + size
    ids = {text: number for number, text in enumerate(scores)}
    pairs = [
        (-scores[text], text[:cut], text[cut:])
        for text in list(scores)[len(SPECIAL) + 256 :]
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    ]
    merges = [(left, right) for _, left, right in sorted(pairs)]
    inner = Tokenizer(
        models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    inner.add_special_tokens(list(SPECIAL))
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
