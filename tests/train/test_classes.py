"""Classes of models that differ from Llama: they train, and what comes of it can be asked."""

import copy
from pathlib import Path
from typing import Any

import gradients
import numpy as np
import pytest
import torch
import transformers

import toys
from spyhop.models import Local, Request, Sampling
from spyhop.render import TURNS
from spyhop.runtime import Runtime
from spyhop.schema import Message
from spyhop.store import Source
from spyhop.train import OptimizerConfig, TuneConfig, read_metrics, tune
from spyhop.train.base import open_student, save
from spyhop.train.distributed import Group
from spyhop.train.engine import Engine, TrainingResult
from spyhop.train.objective import CrossEntropy

CPU = Runtime(device="cpu")
HEADS = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
LINEAR = {
    "linear_num_value_heads": 2, "linear_num_key_heads": 1, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1,
    "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "head_dim": 8,
}  # fmt: skip
CLASSES: dict[str, dict[str, Any]] = {
    "Mamba": {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "eos_token_id": 1,
              "pad_token_id": 0},
    "Jamba": {**HEADS, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
              "mamba_d_state": 4, "use_mamba_kernels": False},
    "Qwen3Next": {**HEADS, **LINEAR},
    "Llama4Text": {**HEADS, "intermediate_size_mlp": 16, "head_dim": 8, "num_local_experts": 2},
}  # fmt: skip


def _model(kind: str, size: int, **more: Any) -> Any:
    torch.manual_seed(0)
    shape = getattr(transformers, f"{kind}Config")(vocab_size=size, **CLASSES.get(kind, HEADS),
                                                   **more)  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(shape)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_trains_and_answers_the_same_in_any_batch(tmp_path: Path, words: Any, kind: str):
    save(tmp_path / "base", _model(kind, len(words)), copy.deepcopy(words), TURNS)
    rows = [toys.answer_row(n, f"say {n % 4}", "abcd"[n % 4] * 6) for n in range(16)]
    config = TuneConfig(epochs=3.0, batch_tokens=300, optimizer=OptimizerConfig(learning_rate=0.01))
    base = Source(tmp_path / "base").open(tmp_path)
    answers = {"one": toys.artifact_of(tmp_path, rows)}
    made = tune.run(tmp_path, config, runtime=CPU, base=base, answers=answers)
    losses = read_metrics(made)["losses"]
    assert losses[-1] < losses[0]
    backend = Local(name="toy").connect(made, CPU)
    requests = [
        Request(id=str(n), messages=[Message(role="user", content="hi" * n)], options=["a", "bc"])
        for n in (1, 3)
    ]
    sampling = Sampling(max_new_tokens=5)
    together = [reply.text for reply in backend.generate(requests, sampling)]
    assert together == [backend.generate([each], sampling)[0].text for each in requests]
    chosen = [choice.probabilities for choice in backend.choose(requests)]
    alone = [backend.choose([each])[0].probabilities for each in requests]
    assert np.allclose(chosen, alone, atol=1e-5)


def test_the_routers_loss_is_added_with_the_models_own_coefficient():
    model = _model("Mixtral", 500, num_local_experts=3, router_aux_loss_coef=0.5)
    rows = gradients.token_rows()
    row = np.array([3])
    student: Any = gradients._Student(model)
    engine = Engine(
        CrossEntropy(rows), student, Group(torch.device("cpu")), CPU, TrainingResult(),
        precision="float32", longest=40,
    )  # fmt: skip
    loss, _, _ = engine.gradient(row)
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    ids = torch.from_numpy(rows.ids[rows.starts[3] : rows.starts[4]].astype(np.int64))[None]
    output = model(input_ids=ids, output_router_logits=True)
    logs = output.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    mask = torch.from_numpy(rows.is_supervised[rows.starts[3] + 1 : rows.starts[4]].copy())
    wanted = -logs[mask].mean() + 0.5 * output.aux_loss
    wanted.backward()
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)
    for own, parameter in zip(found, model.parameters(), strict=True):
        assert torch.allclose(own, parameter.grad, atol=1e-6)


@pytest.mark.parametrize("kind", ["GPT2", "OPT"])
def test_dropout_0_is_none_at_all(tmp_path: Path, words: Any, kind: str):
    """These classes have 0.1 in their configs: two passes in training give the same loss."""
    shapes: dict[str, Any] = {
        "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64},
        "OPT": {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 2, "word_embed_proj_dim": 16,
                "num_attention_heads": 2, "max_position_embeddings": 64, "layerdrop": 0.5},
    }  # fmt: skip
    shape = getattr(transformers, f"{kind}Config")(
        vocab_size=len(words), eos_token_id=1, pad_token_id=0, bos_token_id=None, **shapes[kind]
    )
    model = transformers.AutoModelForCausalLM.from_config(shape)
    save(tmp_path, model, copy.deepcopy(words), TURNS)
    ids = torch.arange(20)[None] + 2
    losses = []
    for dropout in (0.0, 0.0, 0.5):
        config = TuneConfig(epochs=1.0, dropout=dropout)
        student = open_student(tmp_path, config, torch.device("cpu")).model.train()
        with torch.no_grad():
            losses.append([float(student(input_ids=ids, labels=ids).loss) for _ in range(2)])
    assert losses[0][0] == losses[0][1] == losses[1][0] and losses[2][0] != losses[2][1]
