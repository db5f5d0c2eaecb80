import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from spyhop.schema import InputError
from spyhop.train.delta import CARRIED, MANIFEST, apply_delta, make_delta
from spyhop.train.tensors import cast, packed, unpacked, weight_files

KINDS = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32, "u8": np.uint64}


def _folder(path: Path, tensors: dict[str, torch.Tensor], **files: str) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text('{"tie_word_embeddings": false}')
    for name, text in files.items():
        (path / f"{name}.json").write_text(text)
    return path


def _weights(seed: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {
        "model.embed_tokens.weight": (50, 16),
        "a": (7, 3),
        "b": (5,),
        "lm_head.weight": (50, 16),
    }
    return {
        name: (0.02 * torch.randn(shape, generator=random)).to(dtype)
        for name, shape in shapes.items()
    }


def _same(one: Path, other: Path) -> None:
    files = [path.name for path in sorted(one.iterdir()) if path.is_file()]
    assert files == [path.name for path in sorted(other.iterdir())]
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def _tuned(weights: dict[str, torch.Tensor], step: float = 1e-4) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(9)
    return {
        name: (each.float() + step * torch.randn(each.shape, generator=random)).to(each.dtype)
        for name, each in weights.items()
    }


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and a model that was tuned from it with one token more."""
    before = _weights(0)
    after = _tuned(before)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        after[name] = torch.cat([after[name], torch.ones(1, 16, dtype=torch.bfloat16)])
    base = _folder(tmp_path / "base", before)
    return base, _folder(tmp_path / "model", after, tokenizer='{"[[PAD]]": 50}')


@given(st.binary(min_size=8, max_size=400), st.sampled_from(sorted(KINDS)))
@settings(max_examples=60, deadline=None)
def test_every_bit_pattern_comes_back(data: bytes, kind: str):
    width = int(kind[1])
    bits = np.frombuffer(data[: len(data) // width * width], f"<{kind}")
    for start in (np.zeros_like(bits), bits[::-1].copy(), ~bits):
        change = unpacked(packed(bits - start), len(bits), f"<{kind}")
        assert np.array_equal(change + start, bits)


def test_types_are_converted_as_torch_does():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    values = torch.cat([values, values * 1e-6, values * 1e30, torch.tensor([0.0, -0.0, torch.inf])])
    single = values.numpy().view(np.uint32)
    half = values.bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(cast(single, "F32", "BF16"), half)
    assert np.array_equal(cast(half, "BF16", "F32"), values.bfloat16().float().numpy().view("u4"))
    assert np.array_equal(cast(single, "F32", "F16"), values.half().numpy().view(np.uint16))
    assert cast(single, "F32", "I32") is None


def test_the_model_comes_back_bit_by_bit(pair: tuple[Path, Path], tmp_path: Path):
    base, model = pair
    make_delta(base, model, tmp_path / "delta")
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    _same(model, tmp_path / "again")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("new", [torch.float32, torch.float16, torch.float64])
def test_a_model_of_another_type_comes_back(tmp_path: Path, new: torch.dtype):
    base = _folder(tmp_path / "base", _weights(0))
    after = {name: each.to(new) for name, each in _tuned(_weights(0)).items()}
    model = _folder(tmp_path / "model", after)
    make_delta(base, model, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    _same(model, tmp_path / "again")


def test_odd_values_and_shapes_come_back(tmp_path: Path):
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-45, 3.4e38])
    base = _folder(tmp_path / "base", {"x": odd, "gone": odd.clone(), "n": torch.arange(6)})
    after = {
        "x": odd.flip(0), "n": torch.arange(4), "scalar": torch.tensor(2.5),
        "new": torch.ones(3, 2), "none": torch.zeros(0, 4), "flag": torch.tensor([True, False]),
    }  # fmt: skip
    model = _folder(tmp_path / "model", after)
    make_delta(base, model, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    _same(model, tmp_path / "again")


def test_long_tensors_are_taken_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spyhop.train.delta.PIECE_ITEMS", 10)
    before = _weights(0)
    after = _tuned(before)
    after["a"] = torch.cat([after["a"], after["a"]])  # more rows than the base has
    after["lm_head.weight"] = after["lm_head.weight"][:31]  # and fewer
    base, model = _folder(tmp_path / "base", before), _folder(tmp_path / "model", after)
    make_delta(base, model, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    _same(model, tmp_path / "again")


def test_a_delta_is_small_and_holds_nothing_of_the_base(tmp_path: Path):
    before = {"x": (0.02 * torch.randn(400, 500)).bfloat16()}
    base = _folder(tmp_path / "base", before)
    model = _folder(tmp_path / "model", _tuned(before, 1e-5))
    make_delta(base, model, tmp_path / "delta")
    size = (tmp_path / "delta" / "model.safetensors.delta").stat().st_size
    assert size < 0.25 * (model / "model.safetensors").stat().st_size
    same = _folder(tmp_path / "same", before)
    make_delta(base, same, tmp_path / "nothing")
    assert (tmp_path / "nothing" / "model.safetensors.delta").stat().st_size < 100


def _sharded(folder: Path, out: Path, size: str) -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(out, max_shard_size=size)
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out


def test_sharding_may_differ_and_transformers_loads_the_result(tiny_folder: Path, tmp_path: Path):
    base = _sharded(tiny_folder, tmp_path / "base", "40KB")
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[[PAD]]"]})
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for each in model.parameters():
            each += 1e-3 * torch.randn_like(each)
    model.save_pretrained(tmp_path / "model", max_shard_size="60KB")
    tokenizer.save_pretrained(tmp_path / "model")
    assert len(weight_files(base)) != len(weight_files(tmp_path / "model"))
    make_delta(base, tmp_path / "model", tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    _same(tmp_path / "model", tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], each) for name, each in model.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again")) == len(tokenizer)


def test_a_head_that_the_base_had_tied_is_compared_with_its_embeddings(tmp_path: Path):
    before = _weights(0)
    tied = {name: each for name, each in before.items() if name != "lm_head.weight"}
    base = _folder(tmp_path / "base", tied)
    head = before["model.embed_tokens.weight"].clone()
    model = _folder(tmp_path / "model", {**tied, "lm_head.weight": head})
    made = make_delta(base, model, tmp_path / "delta")
    start = {each.name: each.base for each in made.files[0].tensors}["lm_head.weight"]
    assert start and start.name == "model.embed_tokens.weight"
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    _same(model, tmp_path / "again")


def _wrong_value(weights: dict[str, torch.Tensor]) -> None:
    weights["b"][4] = 1.0


def _wrong_shape(weights: dict[str, torch.Tensor]) -> None:
    weights["a"] = weights["a"][:6]


def _lacks_one(weights: dict[str, torch.Tensor]) -> None:
    del weights["a"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_wrong_value, r"not the base that this delta was made for: b has other values"),
        (_wrong_shape, r"a should be BF16 \(7, 3\), and it has BF16 \(6, 3\)"),
        (_lacks_one, r"a should be BF16 \(7, 3\), and it has no such tensor"),
    ],
)
def test_a_wrong_base_is_refused(pair: tuple[Path, Path], tmp_path: Path, change: Any, text: str):
    base, model = pair
    make_delta(base, model, tmp_path / "delta")
    weights = load_file(base / "model.safetensors")
    change(weights)
    save_file(weights, base / "model.safetensors")
    with pytest.raises(InputError, match=text) as caught:
        apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*again*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("place", [0, 4, 30, -1])
def test_damaged_pieces_are_refused(pair: tuple[Path, Path], tmp_path: Path, place: int):
    base, model = pair
    make_delta(base, model, tmp_path / "delta")
    file = tmp_path / "delta" / "model.safetensors.delta"
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"model\.safetensors\.delta: damaged"):
        apply_delta(base, tmp_path / "delta", tmp_path / "again")
    assert not list(tmp_path.glob("*again*"))


def test_cut_missing_and_edited_files_are_refused(pair: tuple[Path, Path], tmp_path: Path):
    base, model = pair
    delta, out = tmp_path / "delta", tmp_path / "again"
    make_delta(base, model, delta)
    whole = {path: path.read_bytes() for path in delta.rglob("*") if path.is_file()}
    weights = delta / "model.safetensors.delta"
    manifest = json.loads(whole[delta / MANIFEST])
    manifest["files"][0]["name"] = "../up.safetensors"
    for path, data, text in (
        (weights, whole[weights][:-9], "damaged"),
        (weights, whole[weights] + b"more", "damaged"),
        (weights, None, "model.safetensors.delta is missing"),
        (delta / MANIFEST, whole[delta / MANIFEST][:-20], "delta.json: damaged"),
        (delta / MANIFEST, json.dumps(manifest).encode(), "leads elsewhere"),
        (delta / MANIFEST, None, "not a delta"),
        (delta / CARRIED / "config.json", b"{}", "config.json: damaged"),
    ):
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(InputError, match=text):
            apply_delta(base, delta, out)
        path.write_bytes(whole[path])
    apply_delta(base, delta, out)
    with pytest.raises(InputError, match="it is there already"):
        apply_delta(base, delta, out)


def test_odd_folders_are_one_line(pair: tuple[Path, Path], tmp_path: Path):
    base, model = pair
    (tmp_path / "empty").mkdir()
    for one, other, text in (
        (tmp_path / "empty", model, "no \\*.safetensors in it; load the model once"),
        (tmp_path / "absent", model, "no such folder"),
    ):
        with pytest.raises(InputError, match=text):
            make_delta(one, other, tmp_path / "delta")
    (model / "pytorch_model.bin").write_bytes(b"weights")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: weights that the index"):
        make_delta(base, model, tmp_path / "delta")
    (base / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-5])
    with pytest.raises(InputError, match=r"damaged: .* bytes, and .* are announced"):
        make_delta(base, base, tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import spyhop.train.delta as delta
base, model, out = map(Path, sys.argv[1:])
delta.PIECE_ITEMS = 50
seen = []
def report(progress):
    seen.append(progress)
    if len(seen) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
delta.make_delta(base, model, out, report)
"""


def test_a_killed_run_leaves_no_half_delta(pair: tuple[Path, Path], tmp_path: Path):
    base, model = pair
    command = [sys.executable, "-c", KILLED, str(base), str(model), str(tmp_path / "delta")]
    done = subprocess.run(command, env=os.environ, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "delta").exists() and list(tmp_path.glob(".delta.*-*"))
    make_delta(base, model, tmp_path / "delta")
    assert not list(tmp_path.glob(".*"))
    apply_delta(base, tmp_path / "delta", tmp_path / "again")
    _same(model, tmp_path / "again")


def test_a_full_disk_is_one_line(tmp_path: Path, small_disk: Path):
    weights = {"x": torch.randn(1000, 600)}
    base = _folder(tmp_path / "base", {"x": torch.randn(1000, 600)})
    model = _folder(tmp_path / "model", weights)
    with pytest.raises(InputError, match=r"cannot be written \(No space left"):
        make_delta(base, model, small_disk / "delta")
    assert not list(small_disk.iterdir())
