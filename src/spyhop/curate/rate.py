"""Self-curation: a model rates pairs from 1 to 5, and no rating is lost unseen.

Source: Humpback (arXiv:2308.06259), section 2.2 and Table 19 (our wording, the same structure: a
task, five described scores, the reason first and the verdict last).
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from spyhop.models import Model, Sampling
from spyhop.schema import Config, Pair
from spyhop.stage import Context, stage
from spyhop.store import Artifact

SCALE = ""
REASONED = ""
UNREASONED = ""
SHOWN = "Instruction:\n{instruction}\n\nResponse:\n{response}"


class RateConfig(Config):
    """How the judge is asked. All texts are whole; `{...}` are replaced.

    A prompt is `scale`, then `reasoned` (or `unreasoned`), then `shown`; a second rating puts
    `shown` first, so that a judge at temperature 0 can disagree with itself, too.
    """

    method: Literal["verdict", "choice", "expected"] = "expected"
    """`verdict`: the judge writes a reason and a verdict line, which is read strictly; what cannot
    be read is missing. `choice`: it must choose a score, without a reason. `expected`: it writes a
    reason, then its verdict is begun for it, and the score is the mean of 1 to 5 under the
    probabilities found there."""
    scale: str = SCALE
    reasoned: str = REASONED
    unreasoned: str = UNREASONED
    """For `choice`."""
    shown: str = SHOWN
    verdict_start: str = "Score:"
    """What a forced verdict begins with."""
    system_message: str = ""
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=512)
    """Of reasons and verdicts."""
    num_verdicts: int = Field(1, ge=1)
    """Of `verdict`: samples whose mean is the score."""
    fallback_verdicts: int = Field(5, ge=1)
    """Of `expected`, where a served model tells no probabilities: the same."""
    num_repeated: int = Field(250, ge=0)
    """Pairs, drawn by hash, that are rated twice; the gate wants 200."""
    seed: int = 0
    max_error_frac: float = Field(0.05, ge=0, le=1)
    """Above this share of failed calls the stage fails."""


@stage(version=1, writes=Pair)
def rate(ctx: Context, config: RateConfig, *, pairs: Artifact, judge: Model) -> Iterator[Pair]:
    """Yield every pair with its rating, in order; earlier ratings are replaced.

    Counts: `score/1` to `score/5` (rounded), `missing/<why>`, `repeated`.

    Raises:
        ModelError: If more than `max_error_frac` of the calls failed.
    """
    raise NotImplementedError
