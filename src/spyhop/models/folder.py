"""Reading a Hugging Face folder: nothing is fetched, and none of its code is run (G15)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spyhop.lazy import torch, transformers
from spyhop.schema import ModelError, SpyhopError

SAFE: dict[str, bool] = {"local_files_only": True, "trust_remote_code": False}
"""Arguments of every `from_pretrained`: else a folder's own code runs after a question."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_config(folder: Path) -> Any:  # noqa: ANN401 (transformers' type)
    """Return the model's config, after a look at the weights' files.

    Raises:
        ModelError: If the folder is not a model, its weights are pickled, or it needs its own code.
    """
    with _reading(folder, "not a Hugging Face model folder"):
        config = transformers.AutoConfig.from_pretrained(folder, **SAFE)
    check_weights(folder)
    return config


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are pickled: loading them can run any code."""
    pickled = [path for pattern in PICKLED for path in sorted(folder.glob(pattern))]
    named = [path.name for path in pickled if path.name != "training_args.bin"]
    if named and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: its weights are pickled ({named[0]}), and loading a pickle can run code; "
            "convert them to safetensors"
        )


def load_model(folder: Path, dtype: torch.dtype, head: str = "CausalLM", **how: Any) -> Any:  # noqa: ANN401
    """Return the model of a folder with the named head, from safetensors only."""
    transformers.utils.logging.disable_progress_bar()
    check_weights(folder)
    with _reading(folder, "not a Hugging Face model folder"):
        read: Any = getattr(transformers, f"AutoModelFor{head}").from_pretrained
        model, info = read(folder, dtype=dtype, output_loading_info=True, **SAFE, **how)
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder}: not a Hugging Face model folder: {len(missing)} weights of its config are "
            f"in no file, such as {missing[0]:.80}"
        )
    return model


def load_tokenizer(folder: Path) -> Any:  # noqa: ANN401 (transformers' type)
    """Return the tokenizer of a folder; a lone `tokenizer.model` is read as Llama's."""
    has_config = any((folder / name).is_file() for name in ("tokenizer_config.json", "config.json"))
    with _reading(folder, "not a tokenizer's folder"):
        if (folder / "tokenizer.model").is_file() and not has_config:
            return transformers.LlamaTokenizerFast.from_pretrained(folder, add_bos_token=True)
        return transformers.AutoTokenizer.from_pretrained(folder, **SAFE)


@contextmanager
def _reading(folder: Path, failure: str) -> Iterator[None]:
    """Turn whatever a library raises about a folder's files into one line."""
    try:
        yield
    except SpyhopError:
        raise
    except Exception as error:  # noqa: BLE001 (files from outside: any error is about them)
        if "trust_remote_code" in str(error):
            raise ModelError(f"{folder}: {_own_code(folder)}") from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: {failure} ({reason:.160})") from None


def check_class(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a model whose class is code in its own folder.

    Raises:
        ModelError: If the config names such a class, and transformers has none of its type.
    """
    if "auto_map" in config and config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise ModelError(f"{folder}: {_own_code(folder)}")


def _own_code(folder: Path) -> str:
    config: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        config = json.loads((folder / "config.json").read_bytes())
    kind, named = config.get("model_type", "a custom class"), config.get("auto_map")
    code = next((name for name in named.values() if name), "") if isinstance(named, dict) else named
    source = f", auto_map: {code!s:.60}" if code else ""
    return (
        f"it needs its own Python code ({kind!s:.40}{source}), which is never run; use a base "
        "whose class transformers has"
    )
