"""Which pairs are trained on: those of a score, or a quota of them, behind a passed gate.

Source: Humpback (arXiv:2308.06259), sections 2.2 and 3.3: A4 are scores of 4 and more, A5 of 4.5.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
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
    """Pairs to keep."""

    min_score: float | None = Field(None, ge=1, le=5)
    """Pairs of this score and more; a missing score is never kept then. `A4`: 4, `A5`: 4.5."""
    num_rows: int | None = Field(None, gt=0)
    """Number of pairs to keep. Default: all that pass."""
    fewer: bool = False
    """Where fewer than `num_rows` pass, keep those."""
    within: int | None = Field(None, gt=0)
    """Number of candidates to consider, drawn by hash. Default: all."""
    take: Literal["best", "random"] = "best"
    """Which of more than `num_rows`: the highest scores, or drawn by hash (without `min_score`
    that is no curation, and needs neither ratings nor a gate)."""
    gate: Literal["refuse", "report"] = "refuse"
    """What becomes of ratings that did not pass the gate: nothing is kept and the run ends, or
    they are used and the findings told."""
    seed: int = 0
    """Random seed of the draws."""

    @model_validator(mode="after")
    def _fits(self) -> "KeepConfig":
        if self.num_rows and self.within and self.num_rows > self.within:
            raise ValueError(f"num_rows {self.num_rows} is above within {self.within}")
        return self

    @property
    def uses_scores(self) -> bool:
        """Whether it matters how pairs are rated."""
        return self.min_score is not None or (self.num_rows is not None and self.take == "best")


def _a5(given: object) -> object:
    if isinstance(given, dict) and not {"min_score", "num_rows"} & given.keys():
        return {**given, "min_score": A5}
    return given


KeepGood: TypeAlias = Annotated[KeepConfig, BeforeValidator(_a5)]
"""What recipes keep: pairs of A5 and more, unless a score or a number is set beside the rest."""


def plan_keep(config: KeepConfig, rated: Estimate, gate: Estimate | None = None) -> Estimate:
    """As many as the quota says, else the paper's share."""
    most = min(rated.rows, config.within or rated.rows)
    rows = round(most * KEPT_FRAC) if config.min_score is not None else most
    return Estimate(rows=min(config.num_rows or rows, most), row_tokens=rated.row_tokens)


@stage(version=1, writes=Pair, plan=plan_keep)
def keep(
    ctx: Context, config: KeepConfig, *, rated: Artifact, gate: Artifact | None = None
) -> Iterator[Pair]:
    """Yield the pairs to train on, in the order of the input; ratings stay with them.

    Draws are by a hash of (seed, id), so a smaller draw is part of a larger one. Of equally good
    pairs that of the higher `rating.value` is taken, then by draw. 40 bytes a row in memory.

    Counts: `kept/<rounded score>` (`kept/unrated`), `left/low`, `left/missing`, `left/quota`,
    `left/not_drawn`; `gate/failed` where a failed gate is only told.

    Raises:
        TrainingError: If scores are used and the gate did not pass, or there is none; with the
            failed findings and what to set.
        InputError: If fewer than `num_rows` pairs can be kept (none, with `fewer`), scores are used
            and a pair has none, or the gate is that of other ratings.
    """
    if config.uses_scores:
        _pass_gate(ctx, config, rated, gate)
    candidates = _candidates(config, rated)
    is_kept = _choose(config, candidates, str(rated))
    rows = ctx.track(rated.rows(Pair), "keeping", total=rated.num_rows)
    for place, row in enumerate(rows):
        score = candidates.score[place]
        if is_kept[place]:
            ctx.count(f"kept/{'unrated' if np.isnan(score) else rounded(score)}")
            yield row
        else:
            ctx.count(f"left/{_why_left(config, candidates.is_drawn[place], score)}")


def _pass_gate(ctx: Context, config: KeepConfig, rated: Artifact, gate: Artifact | None) -> None:
    remedy = 'set keep.gate = "report" to keep pairs nevertheless'
    if gate is None:
        if config.gate == "refuse":
            raise TrainingError(f"{rated}: the ratings passed no gate; add one, or {remedy}")
        return
    if [each.digest for each in gate.record.inputs.get("rated", [])] != [rated.digest]:
        raise InputError(f"{gate}: it is the gate of other ratings than {rated}")
    failed = [finding for finding in gate.rows(Finding) if not finding.is_passed]
    ctx.count("gate/failed", len(failed))
    reasons = "; ".join(f"{finding.id}: {finding.text}" for finding in failed)
    if failed and config.gate == "refuse":
        raise TrainingError(f"the ratings in {rated} cannot be trusted: {reasons}; {remedy}")
    if failed:
        ctx.notice(f"kept by ratings that did not pass: {reasons}")


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What is known of each row; all (rows,)."""

    score: npt.NDArray[np.float64]
    """NaN where it is missing."""
    value: npt.NDArray[np.float64]
    draw: npt.NDArray[np.uint64]
    is_drawn: npt.NDArray[np.bool_]
    """Whether it is among those that are looked at."""


def _candidates(config: KeepConfig, rated: Artifact) -> _Candidates:
    scores, values = array("d"), array("d")
    draws, looked_at = array("Q"), array("Q")
    for name, rating in read_ratings(rated):
        if rating is None and config.uses_scores:
            raise InputError(f"{rated}: pair {name} is not rated; rate the pairs first")
        score, value = (rating.score, rating.value) if rating else (None, None)
        scores.append(np.nan if score is None else score)
        values.append(-np.inf if value is None else value)
        draws.append(number_of(f"{config.seed}/take/{name}"))
        looked_at.append(number_of(f"{config.seed}/within/{name}"))
    is_drawn = np.ones(len(scores), dtype=np.bool_)
    if config.within is not None:
        if config.within > len(scores):
            raise InputError(f"{rated}: {len(scores):,} candidates, not {config.within:,} (within)")
        is_drawn[:] = False
        is_drawn[np.argsort(np.array(looked_at), kind="stable")[: config.within]] = True
    return _Candidates(
        np.array(scores, dtype=np.float64),
        np.array(values, dtype=np.float64),
        np.array(draws, dtype=np.uint64),
        is_drawn,
    )


def _choose(config: KeepConfig, found: _Candidates, name: str) -> npt.NDArray[np.bool_]:
    passing = found.is_drawn.copy()
    if config.uses_scores:
        passing &= ~np.isnan(found.score)
    if config.min_score is not None:
        passing &= found.score >= config.min_score
    if config.num_rows is None:
        return passing
    num_found = int(passing.sum())
    if num_found < config.num_rows and not (config.fewer and num_found):
        above = "" if config.min_score is None else f" of a score of {config.min_score:g} and more"
        raise InputError(
            f"{name}: {num_found:,} pairs{above} among {int(found.is_drawn.sum()):,}, not "
            f"num_rows = {config.num_rows:,}; lower it, or min_score, or look at more"
        )
    is_best = config.take == "best"
    by_score = (-found.value, -found.score) if is_best else ()
    order = np.lexsort((found.draw, *by_score))
    chosen = np.zeros_like(passing)
    chosen[order[passing[order]][: config.num_rows]] = True
    return chosen


def _why_left(config: KeepConfig, is_drawn: bool, score: float) -> str:
    if not is_drawn:
        return "not_drawn"
    if config.uses_scores and np.isnan(score):
        return "missing"
    is_low = config.min_score is not None and score < config.min_score
    return "low" if is_low else "quota"
