"""The Orca recipe on the real files of FLAN-CoT, BBH and AGIEval, in small."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from spyhop.recipe import resolve, run
from spyhop.recipes.orca import OrcaConfig, orca
from spyhop.schema import Answer, Score
from spyhop.stage import Runtime


class Silent:
    """Watches nothing."""

    def started(self, node):
        pass

    def moved(self, node, progress):
        pass

    def ended(self, node, artifact, *, is_hit):
        pass


@pytest.fixture
def neox_folder(words: Any, tmp_path: Path) -> Path:
    """A small random model that is no Llama, with a tokenizer of bytes."""
    folder = tmp_path / "neox"
    shape = GPTNeoXConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=2048,
    )
    GPTNeoXForCausalLM(shape).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _config(data_dir: Path, **changes) -> OrcaConfig:
    settings = {
        "collection": {"path": data_dir / "flan_cot" / "cot_data"},
        "num_queries": 60,
        "train": {"epochs": 1.0, "batch_tokens": 2048, "max_tokens": 1024},
        "suites": [
            {"kind": "bbh", "path": data_dir / "bbh" / "bbh", "items": {"limit": 2}},
            {"kind": "agieval", "path": data_dir / "agieval" / "v1", "items": {"limit": 2}},
        ],
        "measure": {"sampling": {"max_new_tokens": 8}},
    }
    return OrcaConfig.model_validate({**settings, **changes})


@pytest.mark.slow
def test_flan_cot_to_scores_with_the_llama_2_tokenizer(data_dir: Path, tmp_path: Path):
    student = {
        "tokenizer": data_dir / "tok_llama2",
        "new": {"hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 2},
    }
    recipe = orca(_config(data_dir, student=student))
    made = run(resolve(recipe, tmp_path), Runtime(), Silent())
    assert made["queries"].num_rows == 33_443
    assert made["base"].record.counts["vocabulary"] == 32_001
    answers = list(made["answers"].rows(Answer))
    assert len(answers) == 60 and all(row.error is None for row in answers)
    assert {row.system_id for row in answers} == {"6", "11", "16"}
    scores = list(made["scores-student"].rows(Score))
    assert len(scores) == 2 * (23 + 8)
    results = json.loads((made["report"].path / "results.json").read_text())
    assert {row["verdict"] for row in results} <= {"near", "below"}
    assert "Not above chance" in (made["report"].path / "report.html").read_text()


@pytest.mark.slow
def test_a_base_of_another_class_is_trained_and_measured(
    data_dir: Path, tmp_path: Path, neox_folder: Path
):
    train = {"epochs": 1.0, "batch_tokens": 4096, "max_tokens": 2048}
    config = _config(data_dir, student={"base": neox_folder}, suites=[], train=train)
    made = run(resolve(orca(config), tmp_path), Runtime(), Silent())
    saved = json.loads((made["student"].path / "config.json").read_text())
    assert saved["architectures"] == ["GPTNeoXForCausalLM"]
    assert made["student"].record.counts["rows/trained"] > 50
