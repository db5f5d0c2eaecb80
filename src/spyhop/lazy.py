"""Heavy libraries, imported at their first use, so that `spyhop --help` answers at once.

    from spyhop.lazy import torch

names PyTorch for types and for code, and imports it when an attribute is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


class Lazy:
    """Stands for a library until an attribute of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 (whatever the library holds)
        return getattr(import_module(self._name), attribute)


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
