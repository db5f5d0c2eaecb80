"""Ratings by models too small to judge: the likelihood of the response given the instruction."""

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from spyhop.curate.rate import PAIR_TOKENS, count_rating
from spyhop.models import Model, Request
from spyhop.models.script import Failures
from spyhop.schema import Config, Pair, Rating, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact

NUM_SCORES = 5


class LikelihoodConfig(Config):
    """Rating of pairs by the likelihood of the response."""

    is_relative: bool = False
    """Subtract log p(response), so that a text that is likely under any instruction, such as a
    menu, does not score high; doubles the requests."""
    system_message: str = ""
    """System message above the instruction; use that of the model's training on seed pairs."""
    unasked: str = ""
    """User turn in place of the instruction, for log p(response)."""


def plan_likelihood(config: LikelihoodConfig, pairs: Estimate, model: Estimate) -> Estimate:
    """One or two requests per pair, without generated tokens."""
    requests = pairs.rows * (1 + config.is_relative)
    prompt_tokens = round(requests * (pairs.row_tokens or PAIR_TOKENS))
    calls = Calls(requests=requests, prompt_tokens=prompt_tokens)
    return Estimate(rows=pairs.rows, row_tokens=pairs.row_tokens, calls={"model": calls})


@stage(version=1, writes=Pair, plan=plan_likelihood)
def rate_by_likelihood(
    ctx: Context, config: LikelihoodConfig, *, pairs: Artifact, model: Model
) -> Iterator[Pair]:
    """Yield every pair, in order, rated 1 to 5 by its quintile; 5 is the most likely quintile.

    `rating.value` is log p(response | instruction) per token (less log p(response) per token).
    Pairs that do not fit the model are missing (`failed`). 16 bytes a row in memory.

    Counts: `score/1` to `score/5`, `missing/failed`.

    Raises:
        ModelError: If more than `max_error_frac` of the pairs have no likelihood (served models).
    """
    failures = Failures(model.label, ctx.runtime.max_error_frac)
    values = array("d")
    num_asked = 1 + config.is_relative
    requests = (
        Request(
            id=f"{place}.{part}",
            messages=prompt_turns(asked, config.system_message),
            continuation=row.response,
        )
        for place, row in enumerate(pairs.rows(Pair))
        for part, asked in enumerate((row.instruction, config.unasked)[:num_asked])
    )
    for found in model.logprobs(requests, total=pairs.num_rows * num_asked):
        failures.see(found.error)
        values.append(np.nan if found.error is not None else found.mean)
    failures.check()
    measured = np.frombuffer(values, dtype=np.float64)
    if config.is_relative:
        measured = measured[0::2] - measured[1::2]
    for row, value, score in zip(pairs.rows(Pair), measured, fifths(measured), strict=True):
        known: dict[str, Any] = {"score": float(score), "value": float(value)}
        if np.isnan(value):
            known = {"score": None, "missing": "failed", "error": "it could not be weighed"}
        rating = Rating(method="likelihood", judge=model.label, **known)
        count_rating(ctx, rating)
        yield row.model_copy(update={"rating": rating})


def fifths(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the quintile of each value, 1 to 5, as evenly as possible; undefined for NaN."""
    num_known = int((~np.isnan(values)).sum())
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))  # NaN comes last
    return 1 + np.minimum(NUM_SCORES - 1, ranks * NUM_SCORES // max(1, num_known))
