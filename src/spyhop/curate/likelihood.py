"""Ratings for models too small to judge: how likely the response is, given the instruction."""

from collections.abc import Iterator

from pydantic import Field

from spyhop.models import Model
from spyhop.schema import Config, Pair
from spyhop.stage import Context, stage
from spyhop.store import Artifact


class LikelihoodConfig(Config):
    """What is measured."""

    is_relative: bool = False
    """Whether log p(response) is taken off, so that a text that is likely in any case, such as a
    menu, gains nothing; it doubles the requests."""
    system_message: str = ""
    """Under which the instruction is put; take that of the model's training on seed pairs."""
    unasked: str = ""
    """The user's turn in place of the instruction, for log p(response)."""
    max_error_frac: float = Field(0.05, ge=0, le=1)


@stage(version=1, writes=Pair)
def likelihood(
    ctx: Context, config: LikelihoodConfig, *, pairs: Artifact, model: Model
) -> Iterator[Pair]:
    """Yield every pair with its fifth as the rating, in order: 5 is the likeliest fifth.

    `rating.value` is log p(response | instruction) per token (less log p(response) per token).
    Pairs that do not fit the model are missing (`failed`). A score of 4 and more is the top 40 %,
    a 5 the top 20 %. 8 bytes a row in memory.
    """
    raise NotImplementedError
