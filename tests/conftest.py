"""Fixtures that every test may use."""

import copy
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from cluster_nodes import two_nodes  # noqa: F401 (a fixture)
from command import Command
from spyhop.render import SPECIAL_TOKENS
from spyhop.stage import Context, Runtime

settings.register_profile("here", deadline=None)  # a busy machine is no failure
settings.load_profile("here")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; files that are named start sooner in this one."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    config.option.dist = "worksteal"
    return 2


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the unpacked public data; a test that needs it is skipped where it is absent."""
    named = os.environ.get("SPYHOP_DATA")
    if not named:
        pytest.skip("needs public data: set SPYHOP_DATA to the folder where it is unpacked")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"needs public data: SPYHOP_DATA={named} is no folder")
    return folder


def byte_tokenizer(
    *,
    special: Sequence[str] = SPECIAL_TOKENS,
    end: str = "<|end|>",
    pad: str | None = "<|pad|>",
    bos: str | None = None,
) -> Any:
    """One token per byte; with `bos`, one is put before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = [*special, *([bos] if bos else []), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(
        models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=[])
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([*special, *([bos] if bos else [])])
    if bos:
        place = inner.token_to_id(bos)
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, place)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=end, pad_token=pad, bos_token=bos
    )


@pytest.fixture(scope="session")
def words() -> Any:
    """Tokenizer of bytes and the special tokens of `TURNS`."""
    return byte_tokenizer()


@pytest.fixture(scope="session")
def words_with_bos() -> Any:
    """Tokenizer of bytes that starts every text with a BOS, and has no padding token."""
    return byte_tokenizer(special=("</s>",), end="</s>", pad=None, bos="<s>")


@pytest.fixture(scope="session")
def tiny_folder(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama of some 30,000 parameters that answers with varied bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from spyhop.render import TURNS
    from spyhop.train.base import save

    torch.set_num_threads(1)
    torch.manual_seed(1)
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=None,
        initializer_range=0.2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tiny")
    save(path, LlamaForCausalLM(shape), copy.deepcopy(words), TURNS)
    return path


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A stage's context, for what is tested below the level of stages."""
    for name in ("out", "state"):
        (tmp_path / name).mkdir()
    ctx = Context(
        tmp_path, tmp_path / "out", tmp_path / "state", Runtime(device="cpu"), lambda progress: None
    )
    with ctx.resources:
        yield ctx


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)
