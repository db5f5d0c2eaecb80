"""G5: packed is alone, for the classes that people train, as small random models."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from spyhop.train import attention
from spyhop.train.attention import DOCUMENTS, documents, isolate

SHAPE = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
WINDOWED = {"head_dim": 8, "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention"]}  # fmt: skip
CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {"head_dim": 8}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {"sliding_window": 7}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {"head_dim": 8}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**WINDOWED, "query_pre_attn_scalar": 4}),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {}),
    "falcon": ("FalconForCausalLM", "FalconConfig", {}),
    "falcon-new": (
        "FalconForCausalLM",
        "FalconConfig",
        {"new_decoder_architecture": True, "num_kv_heads": 2},
    ),
}
LENGTHS = [24, 5, 1, 13]
MIXED = {
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {"head_dim": 8}, "softcap"),
    "falcon-alibi": ("FalconForCausalLM", "FalconConfig", {"alibi": True}, "fails"),
    "qwen3.5": (
        "Qwen3_5ForCausalLM",
        "Qwen3_5TextConfig",
        {"head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
         "linear_key_head_dim": 8, "linear_value_head_dim": 8,
         "layer_types": ["linear_attention", "full_attention"]},
        "rewriting its neighbours moves a logit",
    ),
}  # fmt: skip


def _model(model: str, config: str, changes: dict[str, Any], *_: Any) -> Any:
    torch.manual_seed(0)
    shape = getattr(transformers, config)(**{**SHAPE, **changes})
    return getattr(transformers, model)(shape).eval()


def _ids(seed: int = 0) -> list[torch.Tensor]:
    random = np.random.default_rng(seed)
    return [torch.from_numpy(random.integers(0, 90, (1, length))) for length in LENGTHS]


def _loss(logits_1TV: torch.Tensor, ids_1T: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        logits_1TV[0, :-1], ids_1T[0, 1:], reduction="sum"
    )  # fmt: skip


def _gradient(model: Any, total: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    total.backward()
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(found)


@pytest.mark.parametrize("name", CLASSES)
def test_packed_is_alone(name: str):
    """Logits and gradients against the model's own attention on each document by itself."""
    model = _model(*CLASSES[name])
    texts = _ids()
    alone = [model(input_ids=ids, use_cache=False).logits for ids in texts]
    gradient = _gradient(model, sum(_loss(*each) for each in zip(alone, texts, strict=True)))
    assert isolate(model, longest=64) is None
    ids_1T = torch.cat(texts, dim=1)
    packed = model(input_ids=ids_1T, **documents(model, LENGTHS)).logits.split(LENGTHS, dim=1)
    for one, other in zip(packed, alone, strict=True):
        moved = (one - other).detach().abs().max()
        assert float(moved) < 1e-4 * float(other.detach().abs().max())
    total = sum(_loss(*each) for each in zip(packed, texts, strict=True))
    difference = _gradient(model, total) - gradient
    assert float(difference.norm() / gradient.norm()) < 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_a_document_does_not_feel_its_neighbours(name: str):
    model = _model(*CLASSES[name])
    assert isolate(model, longest=64) is None
    one, other = _ids(0), _ids(1)
    for kept in range(len(LENGTHS)):
        rewritten = [one[n] if n == kept else other[n] for n in range(len(LENGTHS))]
        with torch.no_grad():
            logits = [
                model(input_ids=torch.cat(texts, dim=1), **documents(model, LENGTHS)).logits
                for texts in (one, rewritten)
            ]
        first, second = (each.split(LENGTHS, dim=1)[kept] for each in logits)
        assert float((first - second).abs().max()) <= 1e-5


@pytest.mark.parametrize("name", [name for name in CLASSES if "falcon" not in name])
def test_gradient_checkpointing_sees_the_same_documents(name: str):
    """Segments are computed again on the way back, after the forward call has returned."""
    model = _model(*CLASSES[name])
    assert isolate(model, longest=64) is None
    texts = _ids()
    ids_1T = torch.cat(texts, dim=1)
    found = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.train()
        logits = model(input_ids=ids_1T, **documents(model, LENGTHS)).logits
        found.append(_gradient(model, _loss(logits, ids_1T)))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-6


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_documents_is_told_and_left_as_it_was(name: str):
    *shape, reason = MIXED[name]
    model = _model(*shape)
    before = model.config._attn_implementation
    model.train()
    found = isolate(model, longest=64)
    assert found is not None and reason in found and "\n" not in found
    assert model.config._attn_implementation == before and model.training


def test_a_model_that_ignores_the_bounds_is_found():
    model = _model(*CLASSES["llama"])
    assert attention.Probe(model, 64).leak() is None  # a block mask isolates, too
    forward = model.forward
    model.forward = lambda attention_mask=None, position_ids=None, **rest: forward(**rest)
    assert "rewriting its neighbours moves a logit" in str(attention.Probe(model, 64).leak())


def test_a_wrong_window_is_found():
    """Isolated, yet not what the model does alone: a window that the model was not trained with."""
    model = _model(*CLASSES["mistral"])
    probe = attention.Probe(model, 64)
    assert isolate(model, longest=64) is None
    model.config.sliding_window = 5
    assert "off from alone" in str(probe.leak())
    model.config.sliding_window = 7
    assert probe.leak() is None


def test_an_isolated_model_reads_and_writes_ordinary_rows_as_before(tiny_folder: Any):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    ids = torch.arange(3, 23)[None]
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    before = model(input_ids=ids, attention_mask=mask).logits[:, 4:]
    options = {"max_new_tokens": 8, "do_sample": False}
    said = model.generate(input_ids=ids, attention_mask=mask, **options)
    assert isolate(model, longest=64) is None
    after = model(input_ids=ids, attention_mask=mask).logits[:, 4:]
    assert torch.equal(before, after)
    assert model.generate(input_ids=ids, attention_mask=mask, **options).tolist() == said.tolist()


def test_the_name_of_the_attention_is_not_saved(tiny_folder: Any, tmp_path: Any):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert isolate(model, longest=64) is None
    model.save_pretrained(tmp_path)
    assert DOCUMENTS not in (tmp_path / "config.json").read_text()


def test_positions_start_anew_in_every_document():
    model = _model(*CLASSES["llama"])
    assert documents(model, [3, 1, 2])["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]


def test_autocast_computes_attention_in_half_precision():
    """Rotary positions give float32 queries; the flash kernels would refuse them."""
    model = _model(*CLASSES["llama"])
    ids_1T = torch.cat(_ids(), dim=1)
    seen = set()
    one = attention.one_document

    def watching(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any) -> Any:
        seen.update({query.dtype, key.dtype, value.dtype})
        return one(query, key, value, *rest)

    with torch.autocast("cpu", torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "one_document", watching)
        assert isolate(model, longest=64) is None
        model(input_ids=ids_1T, **documents(model, LENGTHS))
    assert seen == {torch.bfloat16}


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in CLASSES if "falcon" not in name])
def test_flash_attention_is_alone_on_a_gpu(name: str):
    model = _model(*CLASSES[name]).to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert isolate(model, longest=64) is None
    half = _model(*CLASSES[name]).to("cuda", torch.bfloat16)
    assert isolate(half, longest=64) is None
