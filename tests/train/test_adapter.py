"""Adapters: few parameters move, and the merged folder is a model like any other."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import toys
from spyhop.schema import TrainingError
from spyhop.stage import Runtime
from spyhop.store import Artifact, Source
from spyhop.train import (
    AdapterConfig,
    NewModelConfig,
    OptimizerConfig,
    TuneConfig,
    new_model,
    read_metrics,
    tune,
)
from spyhop.train.base import check_adapter

pytest.importorskip("peft")
CPU = Runtime(device="cpu")
FAST = OptimizerConfig(learning_rate=1e-2, warmup_steps=2)


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Artifact:
    return Source(tiny_folder).open(tmp_path)


def _tune(root: Path, base: Artifact, runtime: Runtime = CPU, **adapter) -> Artifact:
    rows = [toys.answer_row(n, f"say {n % 4}", "abcd"[n % 4] * 6) for n in range(48)]
    config = TuneConfig(
        epochs=4.0, batch_tokens=400, optimizer=FAST, adapter=AdapterConfig(**adapter)
    )
    answers = toys.artifact_of(root, rows)
    return tune.run(root, config, runtime=runtime, base=base, answers={"one": answers})


def test_adapters_learn_and_are_merged(tmp_path: Path, base: Artifact):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = _tune(tmp_path, base, rank=4)
    losses = read_metrics(made)["losses"]
    assert losses[-1] < 0.7 * losses[0]
    before = load_file(base.path / "model.safetensors")
    after = load_file(made.path / "model.safetensors")
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved and all(".layers." in name and name.endswith("proj.weight") for name in moved)
    ids = torch.arange(20)[None]
    merged = AutoModelForCausalLM.from_pretrained(made.path)(input_ids=ids).logits
    plain = AutoModelForCausalLM.from_pretrained(base.path)
    with warnings.catch_warnings():  # peft 0.21 asks transformers by names of the past
        warnings.simplefilter("ignore", FutureWarning)
        apart = PeftModel.from_pretrained(plain, made.path / "adapter")(input_ids=ids).logits
    assert torch.allclose(merged, apart, atol=1e-4)
    about = json.loads((made.path / "adapter" / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] is None and about["r"] == 4


@pytest.mark.parametrize(
    "second", [{"rank": 3, "alpha": 5}, {"rank": 2, "targets": ("q_proj", "up_proj")}], ids=str
)
def test_the_adapter_of_several_trainings_leads_from_the_first_base(
    tmp_path: Path, base: Artifact, second: dict[str, Any]
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    middle = _tune(tmp_path / "one", base, rank=4)
    made = _tune(tmp_path / "two", middle, **second)
    ids = torch.arange(20)[None]
    merged = AutoModelForCausalLM.from_pretrained(made.path)(input_ids=ids).logits
    plain = AutoModelForCausalLM.from_pretrained(base.path)
    with warnings.catch_warnings():  # peft 0.21 asks transformers by names of the past
        warnings.simplefilter("ignore", FutureWarning)
        apart = PeftModel.from_pretrained(plain, made.path / "adapter")(input_ids=ids).logits
    assert torch.allclose(merged, apart, atol=1e-4)
    assert not torch.allclose(
        merged, AutoModelForCausalLM.from_pretrained(middle.path)(input_ids=ids).logits, atol=1e-2
    )


def test_unknown_layers_are_told_with_those_that_there_are(tmp_path: Path, base: Artifact):
    with pytest.raises(
        TrainingError, match=r"adapter\.targets = \('nope',\): .*layers here: .*q_proj"
    ):
        _tune(tmp_path, base, targets=("nope",))


def test_four_bits_are_refused_where_they_cannot_be_had():
    nf4 = AdapterConfig(quantize="nf4")
    with pytest.raises(TrainingError, match=r"works on one GPU, the runtime asks for 2"):
        check_adapter(nf4, 2, torch.device("cuda"))
    with pytest.raises(TrainingError, match=r"needs a CUDA GPU, the runtime's device is cpu"):
        check_adapter(nf4, 1, torch.device("cpu"))
    if find_spec("bitsandbytes") is None:
        with pytest.raises(
            TrainingError, match=r"needs bitsandbytes: pip install 'spyhop\[qlora\]'"
        ):
            check_adapter(nf4, 1, torch.device("cuda"))


@pytest.mark.gpu
def test_four_bits_train_where_bitsandbytes_is(tmp_path: Path, tiny_folder: Path):
    pytest.importorskip("bitsandbytes")
    shape = NewModelConfig(format="turns", hidden_size=128, num_layers=1, num_heads=2)
    words = Source(tiny_folder).open(tmp_path)
    base = new_model.run(tmp_path, shape, tokenizer=words)
    made = _tune(tmp_path, base, Runtime(device="cuda"), rank=4, quantize="nf4")
    losses = read_metrics(made)["losses"]
    assert losses[-1] < 0.8 * losses[0]
    assert (
        load_file(made.path / "model.safetensors")["model.embed_tokens.weight"].dtype
        == torch.float32
    )
