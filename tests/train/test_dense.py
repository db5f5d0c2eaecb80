"""Plain products for short sequences against PyTorch's attention in float64."""

from collections.abc import Callable

import pytest
import torch

from spyhop.train.attention import dense_attention

SDPA = torch.nn.functional.scaled_dot_product_attention


@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_result_and_gradients_are_those_of_attention(
    key_heads: int, dtype: torch.dtype, most: float
):
    torch.manual_seed(0)
    states = [torch.randn(2, heads, 33, 8) for heads in (6, key_heads, key_heads)]
    slope = torch.randn(2, 6, 33, 8)

    def run(attend: Callable[..., torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [each.to(dtype, copy=True).requires_grad_() for each in states]
        out = attend(*leaves)
        out.backward(slope.to(dtype))
        return [out.detach().double(), *(each.grad.double() for each in leaves)]

    def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return SDPA(q, k, v, is_causal=True, enable_gqa=True, scale=0.3)

    own = run(lambda *states: dense_attention(*states, 0.3), dtype)
    for one, other in zip(own, run(exact, torch.float64), strict=True):
        assert float((one - other).norm() / other.norm()) < most


def test_autocast_does_not_round_the_scores():
    """Scores near 300 differ by less than half precision can tell: the softmax still does."""
    query = torch.full((1, 1, 2, 4), 8.5)
    key = torch.stack([torch.full((4,), 8.5), torch.full((4,), 8.5 + 0.03125)])[None, None]
    value = torch.tensor([[0.0] * 4, [1.0] * 4]).bfloat16()[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        out = dense_attention(query, key, value, 1.0)[0, 0, 1]
    assert out.tolist() == pytest.approx([1 / (1 + 2.718281828 ** -(4 * 8.5 / 32))] * 4, abs=5e-3)
