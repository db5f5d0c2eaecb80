"""Self-augmentation: a backward model writes the instruction that a text answers.

Source: Humpback (arXiv:2308.06259), section 2.2: one instruction per segment, temperature 0.7,
top-p 0.9; written once and never again.
"""

from collections.abc import Iterator

from pydantic import Field

from spyhop.augment.conversation import ReversedConfig
from spyhop.models import Model, Sampling
from spyhop.schema import Config, Pair
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact


class InstructionFilters(Config):
    """Which instructions are left out, besides empty ones. Runs are of words."""

    copy_words: int = Field(8, ge=2)
    copy_frac: float = Field(0.5, gt=0, le=1)
    """`copy`: at least this share of the instruction's runs of `copy_words` stands in the
    response."""
    leak_words: int = Field(8, ge=2)
    """`prompt_leak`: a run of so many words of the prompt stands in the instruction; `echo` where
    most of the instruction is such runs."""
    marks: tuple[str, ...] = ()
    """`prompt_leak`, too: a line of the instruction begins with one of these."""
    min_chars: int = Field(10, ge=0)
    max_chars: int | None = Field(None, gt=0)
    """`too_short`, `too_long`. The paper names no limits."""


class BacktranslateConfig(Config):
    """How the backward model is asked, and what is kept of what it writes."""

    asked: ReversedConfig = ReversedConfig()
    """In the words in which it was trained."""
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=256)
    num_instructions: int = Field(1, ge=1)
    """For each segment; each becomes a pair of its own."""
    filters: InstructionFilters = InstructionFilters()
    max_error_frac: float = Field(0.05, ge=0, le=1)
    """Above this share of failed calls the stage fails."""


def plan_backtranslate(
    config: BacktranslateConfig, segments: Estimate, model: Estimate
) -> Estimate:
    """One request per instruction."""
    return Estimate(rows=segments.rows * config.num_instructions)


@stage(version=1, writes=Pair, plan=plan_backtranslate)
def backtranslate(
    ctx: Context, config: BacktranslateConfig, *, segments: Artifact, model: Model
) -> Iterator[Pair]:
    """Yield the segments as responses, each with an instruction; tagged `web`, in order.

    Dropped with their reason: `failed`, `refused`, `cut`, `empty`, `too_short`, `too_long`, `echo`,
    `prompt_leak`, `copy`, `repeated` (the same instruction for the same response before).

    Raises:
        ModelError: If more than `max_error_frac` of the calls failed.
    """
    raise NotImplementedError
