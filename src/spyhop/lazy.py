"""Heavy libraries, imported at their first use, so that `spyhop --help` answers at once.

    from spyhop.lazy import torch

names PyTorch for types and for code, and imports it when an attribute is asked for. Libraries of an
extra may be absent: using one is then an error that names the extra.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from spyhop.schema import NotInstalled

EXTRAS = {
    "local": ("torch", "transformers", "tokenizers", "safetensors"),
    "hub": ("fsspec", "huggingface_hub", "s3fs", "datasets"),
    "lora": ("peft",),
    "qlora": ("bitsandbytes",),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "text": ("nltk", "rouge_score", "sacrebleu"),
    "trafilatura": ("trafilatura",),
}
"""Packages that each extra of the package brings."""


def missing(user: str, extra: str) -> str:
    """Return what `user` lacks of an extra, and the remedy; empty if the extra is installed."""
    absent = [package for package in EXTRAS.get(extra, ()) if find_spec(package) is None]
    return f"{user} needs {absent[0]}: pip install 'spyhop[{extra}]'" if absent else ""


def library(name: str, user: str = "this command") -> Any:  # noqa: ANN401 (a module)
    """Import a library for `user`.

    Raises:
        NotInstalled: If it belongs to an extra that is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), "")
        if text := missing(user, extra):
            raise NotInstalled(text) from None
        raise


class Lazy:
    """Stands for a library until an attribute of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 (whatever the library holds)
        return getattr(library(self._name), attribute)


CausalLM: TypeAlias = Any
"""A causal language model of transformers, or peft's around one: neither is typed."""

if TYPE_CHECKING:
    import duckdb
    import fastwarc.stream_io as stream_io
    import fastwarc.warc as fastwarc
    import jinja2
    import peft
    import resiliparse.parse.encoding as encoding
    import resiliparse.parse.lang as lang
    import safetensors.torch as safe
    import tokenizers
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint.api as shard_api
    import torch.distributed.checkpoint.state_dict as whole
    import torch.distributed.checkpoint.state_dict_loader as shard_reader
    import torch.distributed.checkpoint.state_dict_saver as shard_writer
    import torch.distributed.fsdp as fsdp
    import torch.utils.tensorboard as tensorboard
    import transformers
    import transformers.cache_utils as cache_utils
    from scipy import optimize, sparse, special, stats
    from torch import Tensor
else:
    cache_utils = Lazy("transformers.cache_utils")
    dist = Lazy("torch.distributed")
    duckdb = Lazy("duckdb")
    encoding = Lazy("resiliparse.parse.encoding")
    fastwarc = Lazy("fastwarc.warc")
    fsdp = Lazy("torch.distributed.fsdp")
    jinja2 = Lazy("jinja2")
    lang = Lazy("resiliparse.parse.lang")
    optimize = Lazy("scipy.optimize")
    peft = Lazy("peft")
    safe = Lazy("safetensors.torch")
    shard_api = Lazy("torch.distributed.checkpoint.api")
    shard_reader = Lazy("torch.distributed.checkpoint.state_dict_loader")
    shard_writer = Lazy("torch.distributed.checkpoint.state_dict_saver")
    sparse = Lazy("scipy.sparse")
    special = Lazy("scipy.special")
    stats = Lazy("scipy.stats")
    stream_io = Lazy("fastwarc.stream_io")
    tensorboard = Lazy("torch.utils.tensorboard")
    tokenizers = Lazy("tokenizers")
    torch = Lazy("torch")
    transformers = Lazy("transformers")
    whole = Lazy("torch.distributed.checkpoint.state_dict")
    Tensor = Any
