"""Which weights Muon gets, and that its update is the published one."""

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from spyhop.train.optimizer import (
    Muon,
    OptimizerConfig,
    make_optimizers,
    orthogonalise,
    with_defaults,
)

BOTH = OptimizerConfig(learning_rate=1e-3, muon_learning_rate=0.02)
SHAPES = [(16, 16), (64, 16), (16, 64), (32, 96), (128, 64), (2, 40)]


def _gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32,
                   bos_token_id=None, eos_token_id=1)
    )  # fmt: skip


def _llama(*, is_tied: bool) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                    num_attention_heads=2, attention_bias=True, tie_word_embeddings=is_tied)
    )  # fmt: skip


def _names(model: Any, optimizer: Any) -> set[str]:
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    return {name for name, each in model.named_parameters() if id(each) in held}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "tied llama"])
def test_muon_gets_the_matrices_of_the_blocks_alone(kind: str):
    model = _gpt2() if kind == "gpt2" else _llama(is_tied=kind == "tied llama")
    adam, muon = (_names(model, optimizer) for optimizer in make_optimizers(model, BOTH))
    every = dict(model.named_parameters())
    assert adam | muon == set(every) and not adam & muon
    outer = ("wte", "wpe", "embed_tokens", "lm_head")
    wanted = {
        name
        for name, each in every.items()
        if each.ndim == 2 and not any(part in name for part in outer)
    }
    assert muon == wanted and len(muon) >= 8
    if kind == "gpt2":
        assert {"transformer.wte.weight", "transformer.wpe.weight"} <= adam


def test_without_a_rate_for_muon_there_is_none():
    model = _gpt2()
    (adam,) = make_optimizers(model, OptimizerConfig(learning_rate=1e-3))
    assert _names(model, adam) == set(dict(model.named_parameters()))


@pytest.mark.parametrize(
    ("num_steps", "is_adapter", "peak", "warmup"),
    [(20, False, 1e-4, 4), (100, True, 1e-3, 10), (1000, False, 1e-4, 50), (1, True, 1e-3, 0),
     (4000, False, 5e-5, 200), (4000, True, 5e-4, 200)],
)  # fmt: skip
def test_defaults_depend_on_what_is_trained_and_for_how_long(
    num_steps: int, is_adapter: bool, peak: float, warmup: int
):
    found = with_defaults(OptimizerConfig(), num_steps, is_adapter=is_adapter)
    assert (found.learning_rate, found.warmup_steps) == (pytest.approx(peak), warmup)
    given = OptimizerConfig(learning_rate=0.5, warmup_steps=0)
    assert with_defaults(given, num_steps, is_adapter=is_adapter) == given


def _steps(optimizer: Any, parameters: Sequence[torch.Tensor], num_steps: int = 4) -> list[Any]:
    """Return each step's update of each parameter, for gradients that are always the same."""
    source = torch.Generator().manual_seed(3)
    updates = []
    for _ in range(num_steps):
        before = [each.detach().clone() for each in parameters]
        for each in parameters:
            each.grad = torch.randn(each.shape, generator=source)
        optimizer.step()
        updates.append([each.detach() - old for each, old in zip(parameters, before, strict=True)])
    return updates


def test_the_update_is_pytorchs_within_its_rounding():
    """PyTorch iterates in bfloat16, three digits; ours in float32, many matrices at once."""
    torch.manual_seed(1)
    ours = [torch.randn(shape).requires_grad_() for shape in [*SHAPES, *SHAPES[:2]]]
    theirs = [each.detach().clone().requires_grad_() for each in ours]
    reference = torch.optim.Muon(
        theirs, lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.0, adjust_lr_fn="original"
    )
    found, wanted = _steps(Muon(ours, lr=0.02), ours), _steps(reference, theirs)
    pairs = zip(chain.from_iterable(found), chain.from_iterable(wanted), strict=True)
    for mine, other in pairs:
        cosine = torch.nn.functional.cosine_similarity(mine.flatten(), other.flatten(), dim=0)
        assert float(cosine) > 0.99, mine.shape
        assert float(mine.norm()) == pytest.approx(float(other.norm()), rel=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one(shape: tuple[int, int]):
    torch.manual_seed(2)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, *shape)))
    median = float(values.median())
    assert 0.6 < median < 1.3 and float(values.max()) < 1.3


def test_a_parameter_without_a_gradient_costs_nothing():
    torch.manual_seed(4)
    used, unused = (torch.randn(8, 8).requires_grad_() for _ in range(2))
    alone, before = used.detach().clone().requires_grad_(), unused.detach().clone()
    both, single = Muon([used, unused], lr=0.1), Muon([alone], lr=0.1)
    for _ in range(2):
        used.grad, unused.grad = torch.ones(8, 8).tril(), None
        alone.grad = used.grad.clone()
        both.step()
        single.step()
        both.zero_grad()
    assert torch.equal(unused, before) and torch.isfinite(unused).all()
    assert torch.allclose(used, alone, atol=1e-6) and used.grad is None


def test_weights_decay_by_rate_times_decay():
    weight = torch.ones(4, 4).requires_grad_()
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.5, weight_decay=0.1).step()
    assert torch.allclose(weight, torch.full((4, 4), 0.95))


def test_momenta_are_saved_and_restored():
    torch.manual_seed(5)
    whole = [torch.randn(shape).requires_grad_() for shape in SHAPES[:3]]
    split = [each.detach().clone().requires_grad_() for each in whole]
    through, first, second = Muon(whole, lr=0.02), Muon(split, lr=0.02), Muon(split, lr=0.02)
    _steps(through, whole, 2)
    _steps(first, split, 2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found, wanted = _steps(second, split, 1), _steps(through, whole, 1)
    assert all(torch.equal(a, b) for a, b in zip(found[0], wanted[0], strict=True))
