"""The loop against a plain one: real rows, a real tokenizer, one example at a time, no tricks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import toys
from spyhop.models.folder import load_tokenizer
from spyhop.render import ORCA, Renderer
from spyhop.stage import Runtime
from spyhop.store import Source
from spyhop.train import NewModelConfig, OptimizerConfig, TuneConfig, new_model, tune
from spyhop.train.base import add_padding
from spyhop.train.batches import plan_batches

RATE, NUM_STEPS, BATCH_TOKENS = 1e-3, 50, 350


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["off", "on"])
def test_fifty_steps_have_the_losses_of_a_plain_loop(tmp_path: Path, data_dir: Path, packing: str):
    """FLAN-CoT rows, the Llama-2 tokenizer with [[PAD]] (32,001), AdamW, linear schedule."""
    with (data_dir / "flan_cot" / "cot_data" / "gsm8k_train.tsv").open() as stream:
        lines = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[:150]
    rows = [
        toys.answer_row(n, question, f"{reason} The answer is {answer}.")
        for n, (question, answer, reason) in enumerate(lines)
    ]
    words = load_tokenizer(data_dir / "tok_llama2")
    shape = NewModelConfig(
        hidden_size=48, intermediate_size=96, num_layers=2, num_heads=4, tie_embeddings=False
    )
    tokenizer = Source(data_dir / "tok_llama2").open(tmp_path)
    base = new_model.run(tmp_path, shape, tokenizer=tokenizer)
    config = TuneConfig(
        epochs=1.0, batch_tokens=BATCH_TOKENS, format="orca",
        optimizer=OptimizerConfig(
            learning_rate=RATE, warmup_steps=0, schedule="linear", clip=1.0, weight_decay=0.1
        ),
    )  # fmt: skip
    answers = toys.artifact_of(tmp_path, rows)
    made = tune.run(
        tmp_path, config, runtime=Runtime(device="cpu", packing=packing), base=base,
        answers={"one": answers},
    )  # fmt: skip
    found = json.loads((made.path / "metrics.json").read_text())["losses"]

    from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    assert model.get_input_embeddings().num_embeddings == 32_001
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.1, foreach=False
    )
    add_padding(words)
    encoded = [
        (each.ids.tolist(), int(np.argmax(each.is_supervised)))
        for each in Renderer(words, ORCA).encode([row.messages for row in rows])
    ]
    assert all(ids[0] == words.bos_token_id and ids[-1] == 2 for ids, _ in encoded)
    lengths = np.array([len(ids) for ids, _ in encoded])
    order = plan_batches(
        lengths, [0, len(rows)], budgets=[int(lengths.sum())], batch_tokens=BATCH_TOKENS, seed=0
    )
    assert len(found) == len(order) >= NUM_STEPS
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(order))
    for step, batch in enumerate(order[:NUM_STEPS]):
        num = sum(len(encoded[row][0]) - encoded[row][1] for row in batch)
        total = 0.0
        for row in batch:
            ids, first = encoded[row]
            labels = torch.tensor([[-100] * first + ids[first:]])
            mean = model(input_ids=torch.tensor([ids]), labels=labels).loss
            part = mean * (len(ids) - first) / num
            part.backward()
            total += float(part.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert found[step] == pytest.approx(total, rel=1e-5), step
    assert np.mean(found[-5:]) < 0.8 * found[0]  # it learned on the way
