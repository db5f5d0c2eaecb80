"""Where and how fast things run: devices, processes, sizes of batches. Never part of a key."""

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field

from spyhop.schema import Frozen, RecipeError
from spyhop.settings import InputPath


def _known(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", device):
        raise ValueError("write auto, cpu, cuda or cuda:1")
    return device


Device = Annotated[str, AfterValidator(_known)]


class Shard(NamedTuple):
    """One of several processes that share the parts of a run's steps, by their numbers alone."""

    number: int
    """From 1; 0 has no parts of its own."""
    total: int

    @classmethod
    def of(cls, text: str) -> "Shard":
        """Read `NUMBER/TOTAL`."""
        found = re.fullmatch(r"(\d+)/([1-9]\d*)", text)
        if found is None or int(found[1]) > int(found[2]):
            raise RecipeError(f"--shard {text}: write 1/8 to 8/8, or 0/8 for the steps between")
        return cls(int(found[1]), int(found[2]))

    def owns(self, part: int) -> bool:
        """Return whether a part, counted from 0, is this process's."""
        return part % self.total == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


class Resources(Frozen):
    """Resources of one step."""

    model_config = ConfigDict(allow_inf_nan=False)

    device: Device = "auto"
    """Device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one."""
    gpus: int = Field(1, ge=1)
    """GPUs of this machine for one training run; with `device = "cpu"`, processes."""
    threads: int = Field(1, ge=1)
    """Processor threads of each worker."""
    processes: int = Field(1, ge=1)
    """Processes that share the parts of one step over a corpus."""
    max_error_frac: float = Field(0.05, ge=0, le=1)
    """Largest share of failed model calls; above it the step fails."""


class Runtime(Resources):
    """Where and how fast things run. Never part of a key."""

    store: InputPath | None = None
    """Output folder; a relative path starts at the recipe's folder."""
    workers: int = Field(1, ge=1)
    """Recipe steps to run in parallel, each in its own process."""
    steps: dict[str, Resources] = Field({}, repr=False)
    """Resources of single steps, in tables `[runtime.steps.NAME]`; other settings apply to all."""
    on: str = Field("", pattern=r"^(ray:.+)?$")
    """Ray cluster for segments, local models and tokenising: `ray://host:port`. Default: this
    machine."""
    inference_tokens: int = Field(16_384, ge=256)
    """Tokens of one padded batch when a local model generates."""
    microbatch_tokens: int = Field(16_384, ge=64)
    """Tokens of one forward pass in training; gradients of a larger batch are accumulated."""
    checkpoint_s: float = Field(20.0, gt=0)
    """Seconds of training between two resumable checkpoints."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Pack rows end to end in training, or pad them: same gradient. `auto` packs on CUDA."""
    gradient_checkpointing: bool = False
    """Compute the forward pass twice in training, to save memory."""
    peak_tflops: float | None = Field(None, gt=0)
    """Peak of the device, to compute its utilisation; known for common GPUs."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the metrics of each step go, besides a file."""

    def of_step(self, name: str) -> "Runtime":
        """Return the runtime of one step of a recipe."""
        own = self.steps.get(name, Resources())
        return self.model_copy(update=own.model_dump(exclude_unset=True))
