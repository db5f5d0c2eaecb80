"""What training costs, against what the paper says it took."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from spyhop.models.local import load
from spyhop.schema import InputError, ModelError
from spyhop.stage import Estimate, Runtime
from spyhop.train.config import AdapterConfig, TuneConfig
from spyhop.train.cost import (
    Shape,
    activation_bytes,
    describe_cost,
    gpu_hours,
    peak_flops,
    read_shape,
    shape_of,
    state_bytes,
)
from spyhop.train.tune import plan_tune

A100 = 312.0
ORCA = 13e9


@pytest.mark.parametrize(("tokens", "hours", "mfu"), [(15.4e9, 3200, 0.33), (3.0e9, 800, 0.26)])
def test_the_papers_figures_imply_their_use_of_the_devices(tokens: float, hours: float, mfu: float):
    """Orca, section 3.2: 20 A100 for 160 hours, then for 40; tokens are slots of packed rows."""
    flops = tokens * Shape(int(ORCA)).flops_per_token()
    assert gpu_hours(flops, A100, 1.0) / hours == pytest.approx(mfu, abs=0.005)


def test_a_pickled_model_is_refused_by_a_plan(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model.bin\).*convert them"):
        read_shape(tmp_path)


def test_weights_without_a_config_are_refused_by_a_plan(tiny_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_folder, tmp_path / "bare")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"bare: weights without a config\.json"):
        read_shape(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_folder_is_one_line(tiny_folder: Path, tmp_path: Path, file: str):
    folder = shutil.copytree(tiny_folder, tmp_path / "damaged")
    assert read_shape(folder)
    (folder / file).write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match=rf"{file}: not a"):
        read_shape(folder)
    with pytest.raises(ModelError, match=": not a "):
        load(folder, torch.float32, torch.device("cpu"))


def test_operations_are_those_of_a_profiler():
    """PyTorch's own counter, forward and backward, on a small model; attention is counted whole."""
    from torch.utils.flop_counter import FlopCounterMode

    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False,
        attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, 300, (2, 48))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    shape = shape_of(model)
    assert shape.parameters == model.num_parameters() - 300 * 64
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    matrices = Shape(shape.parameters - norms, shape.num_layers, shape.hidden_size)
    counted = counter.get_total_flops() / ids.numel()
    assert matrices.flops_per_token(2 * 48) == pytest.approx(counted, rel=0.02)  # eager: no half


def test_memory_is_sixteen_bytes_a_parameter_and_what_a_pass_keeps():
    shape = Shape(parameters=1_000_000, num_layers=4, hidden_size=128)
    assert state_bytes(shape) == 18_000_000
    assert state_bytes(shape, trained=10_000) == 990_000 * 4 + 10_000 * 18
    assert state_bytes(shape, trained=10_000, frozen_bytes=0.6) == 990_000 * 0.6 + 10_000 * 18
    runtime = Runtime(microbatch_tokens=1000)
    assert activation_bytes(4, 128, runtime) == 34 * 4 * 128 * 1000
    again = runtime.model_copy(update={"gradient_checkpointing": True})
    assert activation_bytes(4, 128, again) == 4 * 4 * 128 * 1000


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        ({}, "needs 21 of 80 GB together; see runtime.gradient_checkpointing"),
        ({"microbatch_tokens": 32_768}, "fits none of 80 GB; see runtime.gradient_checkpointing"),
        ({"gradient_checkpointing": True, "microbatch_tokens": 4096}, "needs 2 of 80 GB together"),
    ],
)
def test_every_device_has_passes_of_its_own(runtime: dict[str, Any], told: str):
    """A model of eight billion parameters; only weights and optimiser are shared."""
    base = Estimate(parameters=8_000_000_000, num_layers=32, hidden_size=4096)
    rows = {"answers": Estimate(rows=1000, row_tokens=500.0)}
    config = TuneConfig(epochs=1.0)
    assert told in describe_cost(plan_tune(config, base, rows), Runtime(**runtime))
    small = config.model_copy(update={"adapter": AdapterConfig(quantize="nf4")})
    assert "fits one of 80 GB" in describe_cost(
        plan_tune(small, base, rows), Runtime(gradient_checkpointing=True)
    )


def test_a_device_is_known_or_told():
    cpu = torch.device("cpu")
    assert peak_flops(Runtime(), cpu) is None
    assert peak_flops(Runtime(peak_tflops=2.5), cpu) == 2.5e12


def test_a_plan_tells_tokens_hours_and_memory():
    base = Estimate(parameters=1_000_000_000, num_layers=16, hidden_size=2048)
    answers = {"answers": Estimate(rows=1_000_000, row_tokens=500.0)}
    plan = plan_tune(TuneConfig(epochs=2.0), base, answers)
    assert plan.trained_tokens == 1_000_000_000
    assert plan.flops == pytest.approx(6e18, rel=0.1) and plan.parameters == base.parameters
    assert 4 < gpu_hours(plan.flops, 989.0, 0.4) < 5
    assert plan.state_bytes == 18e9
    small = plan_tune(TuneConfig(epochs=2.0, adapter={}), base, answers)
    assert small.state_bytes < plan.state_bytes
