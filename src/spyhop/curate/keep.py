"""Keep the pairs to train on: by score or quota, once the ratings passed the gate.

Source: Humpback (arXiv:2308.06259), sections 2.2 and 3.3: A4 keeps scores >= 4, A5 >= 4.5.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, model_validator

from spyhop.curate.rate import read_ratings, rounded
from spyhop.schema import Config, Finding, InputError, Pair, TrainingError
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, number_of

A4, A5 = 4.0, 4.5
KEPT_FRAC = 0.4
"""Planning figure: A4 kept 39 % in the paper."""


class KeepConfig(Config):
    """Which pairs to keep."""

    min_score: float | None = Field(None, ge=1, le=5)
    """Minimum score; pairs without a score are dropped then. `A4`: 4, `A5`: 4.5."""
    num_rows: int | None = Field(None, gt=0)
    """Keep exactly this many pairs; default: all that pass."""
    fewer: bool = False
    """Keep all passing pairs if there are fewer than `num_rows`, instead of stopping."""
    within: int | None = Field(None, gt=0)
    """Consider only this many pairs, sampled by hash; default: all."""
    take: Literal["best", "random"] = "best"
    """Which of more than `num_rows` pairs to keep: `best` scores, or a `random` sample by hash
    (without `min_score` the sample needs neither ratings nor a gate)."""
    gate: Literal["refuse", "report"] = "refuse"
    """If the gate failed: `refuse` stops the run, `report` keeps pairs and logs the findings."""
    seed: int = 0
    """Seed of the samples."""

    @model_validator(mode="after")
    def _fits(self) -> "KeepConfig":
        if self.num_rows and self.within and self.num_rows > self.within:
            raise ValueError(f"num_rows {self.num_rows} is above within {self.within}")
        return self

    @property
    def uses_scores(self) -> bool:
        """Whether the selection depends on ratings."""
        return self.min_score is not None or (self.num_rows is not None and self.take == "best")


def _a5(given: object) -> object:
    if isinstance(given, dict) and not {"min_score", "num_rows"} & given.keys():
        return {**given, "min_score": A5}
    return given


KeepGood: TypeAlias = Annotated[KeepConfig, BeforeValidator(_a5)]
"""Default of recipes: scores of A5 or higher, unless `min_score` or `num_rows` is set."""


def plan_keep(config: KeepConfig, rated: Estimate, gate: Estimate | None = None) -> Estimate:
    """The quota, or else the share that the paper kept."""
    most = min(rated.rows, config.within or rated.rows)
    rows = round(most * KEPT_FRAC) if config.min_score is not None else most
    return Estimate(rows=min(config.num_rows or rows, most), row_tokens=rated.row_tokens)


@stage(version=2, writes=Pair, plan=plan_keep)
def keep(
    ctx: Context, config: KeepConfig, *, rated: Artifact, gate: Artifact | None = None
) -> Iterator[Pair]:
    """Yield the pairs to train on, with their ratings, in the order of the input.

    Samples are by a hash of (seed, id), so a larger sample contains a smaller one. Ties in score
    are broken by the higher `rating.value`, then by hash. Some 150 bytes a row in memory.

    Counts: `kept/<rounded score>` (`kept/unrated`), `left/low`, `left/missing`, `left/quota`,
    `left/not_sampled`; `gate/failed` if a failed gate is only logged.

    Raises:
        TrainingError: If scores are used and the gate failed or is absent.
        InputError: If fewer than `num_rows` pairs can be kept (no pair, with `fewer`), a pair is
            not rated though scores are used, or the gate belongs to other ratings.
    """
    if config.uses_scores:
        _pass_gate(ctx, config, rated, gate)
    scores, values, names = [], [], []
    for name, rating in read_ratings(rated):
        if rating is None and config.uses_scores:
            raise InputError(f"{rated}: pair {name} is not rated; rate the pairs first")
        score, value = (rating.score, rating.value) if rating else (None, None)
        scores.append(np.nan if score is None else score)
        values.append(-np.inf if value is None else value)
        names.append(name)
    is_sampled = np.ones(len(names), bool)
    if (within := config.within) is not None:
        if within > len(names):
            raise InputError(f"{rated}: {len(names):,} pairs, fewer than within = {within:,}")
        is_sampled[np.argsort(_draws(config, "within", names), kind="stable")[within:]] = False
    known = np.array(scores, float)
    passing = is_sampled & ~np.isnan(known) if config.uses_scores else is_sampled.copy()
    if config.min_score is not None:
        passing &= known >= config.min_score
    if config.num_rows is not None:
        num_found, num_sampled = int(passing.sum()), int(is_sampled.sum())
        if num_found < config.num_rows and not (config.fewer and num_found):
            least = config.min_score
            above = "" if least is None else f" with a score of at least {least:g}"
            raise InputError(
                f"{rated}: {num_found:,} of {num_sampled:,} pairs{above}, fewer than num_rows = "
                f"{config.num_rows:,}; lower num_rows or min_score, or raise within"
            )
        by_score = (-np.array(values, float), -known) if config.take == "best" else ()
        order = np.lexsort((_draws(config, "take", names), *by_score))
        passing[order[passing[order]][config.num_rows :]] = False
    tracked = ctx.track(rated.rows(Pair), "keeping", total=rated.num_rows)
    for row, score, is_in, is_kept in zip(tracked, known, is_sampled, passing, strict=True):
        if is_kept:
            ctx.count(f"kept/{'unrated' if np.isnan(score) else rounded(score)}")
            yield row
        elif not is_in:
            ctx.count("left/not_sampled")
        elif config.uses_scores and np.isnan(score):
            ctx.count("left/missing")
        else:
            is_low = config.min_score is not None and score < config.min_score
            ctx.count(f"left/{'low' if is_low else 'quota'}")


def _draws(config: KeepConfig, of: str, names: list[str]) -> npt.NDArray[np.uint64]:
    """Return the random order of pairs, by hash."""
    return np.array([number_of(f"{config.seed}/{of}/{name}") for name in names], np.uint64)


def _pass_gate(ctx: Context, config: KeepConfig, rated: Artifact, gate: Artifact | None) -> None:
    remedy = 'set keep.gate = "report" to keep pairs anyway'
    if gate is None:
        if config.gate == "refuse":
            raise TrainingError(
                f"{rated}: ratings were not checked by a gate; add a gate step, or {remedy}"
            )
        return
    if [each.digest for each in gate.record.inputs.get("rated", [])] != [rated.digest]:
        raise InputError(f"{gate}: this gate checked other ratings than {rated}")
    failed = [finding for finding in gate.rows(Finding) if not finding.is_passed]
    ctx.count("gate/failed", len(failed))
    if failed:
        reasons = "; ".join(f"{finding.id}: {finding.text}" for finding in failed)
        if config.gate == "refuse":
            text = f"the ratings in {rated} did not pass the gate: {reasons}; {remedy}"
            raise TrainingError(text)
        ctx.notice(f"kept although the gate failed: {reasons}")
