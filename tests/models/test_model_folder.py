"""Folders from outside: one line, and never their code."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spyhop.models.folder import load_model, load_tokenizer, read_config
from spyhop.schema import ModelError

CODE = "from pathlib import Path\nPath({mark!r}).touch()\nfrom transformers import {name}\n"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "base")


def _change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folders_own_code_is_never_run(folder: Path, tmp_path: Path):
    """Neither of a config, a model nor a tokenizer; and no question is asked."""
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(CODE.format(mark=str(mark), name="LlamaConfig as Own"))
    _change(folder, model_type="own", auto_map={"AutoConfig": "own.Own",
                                                "AutoModelForCausalLM": "own.Own"})  # fmt: skip
    for read in (read_config, lambda path: load_model(path, torch.float32)):
        with pytest.raises(
            ModelError, match=r"its own Python code \(own, auto_map: own\.Own\), which is nev"
        ):
            read(folder)
    words = folder / "tokenizer_config.json"
    values = json.loads(words.read_text())
    values |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    words.write_text(json.dumps(values))
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value) and not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_before_they_are_read(folder: Path, name: str):
    torch.save(load_file(folder / "model.safetensors"), folder / name)
    (folder / "model.safetensors").unlink()
    for read in (read_config, lambda path: load_model(path, torch.float32)):
        with pytest.raises(ModelError, match=rf"weights are pickled \({name}\).*safetensors$"):
            read(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_type": "no-such"},
        {"num_attention_heads": 0},
        {"hidden_size": "wide"},
        {"num_hidden_layers": 5},
        {"rope_parameters": {"rope_type": "no-such"}},
        {"vocab_size": 7},
    ],
    ids=str,
)
def test_a_wrong_config_is_one_line(folder: Path, wrong: dict[str, object]):
    _change(folder, **wrong)
    with pytest.raises(ModelError, match="not a Hugging Face model folder") as caught:
        read_config(folder)
        load_model(folder, torch.float32)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
