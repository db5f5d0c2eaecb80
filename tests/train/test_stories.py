"""A genuine base model through the whole way: its own text, and a training that it learns from."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spyhop.stage import Runtime
from spyhop.store import Source
from spyhop.train import OptimizerConfig, TuneConfig, read_metrics, tune
from support.stories import known_opening, write_stories
from toys import answer_row, artifact_of


@pytest.fixture(scope="module")
def stories(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stories(data_dir, tmp_path_factory.mktemp("stories"))


def test_its_greedy_text_is_the_published_one(stories: Path, data_dir: Path):
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(stories)
    words = AutoTokenizer.from_pretrained(stories)
    opening = known_opening(data_dir)[:400]
    ids = model.generate(
        torch.tensor([[words.bos_token_id]]), max_new_tokens=200, do_sample=False, pad_token_id=0
    )[0]
    assert words.decode(ids, skip_special_tokens=True).strip().startswith(opening)


def test_its_tokens_are_those_of_the_reference(stories: Path, data_dir: Path):
    words = AutoTokenizer.from_pretrained(stories)
    text = known_opening(data_dir)
    ids = words(text).input_ids
    assert ids[0] == words.bos_token_id and words.decode(ids[1:]) == text
    assert len(ids) < len(text) / 2  # it merges


def test_its_loss_falls_when_it_is_tuned(stories: Path, tmp_path: Path):
    rows = [
        answer_row(n, f"What has {name}?", f"{name} has a big red {thing}.")
        for n, (name, thing) in enumerate(
            (name, thing) for name in ("Tim", "Lily", "Mom", "Ben") for thing in ("ball", "car")
        )
    ]
    config = TuneConfig(
        epochs=12, batch_tokens=256, max_tokens=256, optimizer=OptimizerConfig(learning_rate=1e-3)
    )
    student = tune.run(
        tmp_path, config, runtime=Runtime(device="cpu"), base=Source(stories).open(tmp_path),
        answers={"one": artifact_of(tmp_path, rows)},
    )  # fmt: skip
    losses = read_metrics(student)["losses"]
    assert losses[-1] < 0.5 * losses[0]
