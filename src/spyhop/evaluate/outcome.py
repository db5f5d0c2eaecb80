"""Outcomes item by item, right or wrong or a log-likelihood, and their paired comparison."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from spyhop.models import Model, Request
from spyhop.schema import Answer, Config, InputError, Message, Row, Verdict
from spyhop.stage import Calls, Context, Estimate, Estimates, stage, sum_estimates
from spyhop.statistics import Comparison, paired_difference, paired_seed_difference
from spyhop.store import Artifact, Artifacts, rows_of


class HeldOutLogLikelihood(Row):
    """How likely a model finds one held-out response."""

    value: float
    """Mean natural log-probability per token, end token included; perplexity is exp(-value)."""
    num_tokens: int


class HeldOutConfig(Config):
    """How the model is asked."""

    system_message: str | None = None
    """System message that replaces the rows' own; default: theirs."""


def plan_score_held_out(config: HeldOutConfig, answers: Estimates, model: Estimate) -> Estimate:
    """One request per row, for which no token is generated."""
    every = sum_estimates(answers.values())
    calls = Calls(requests=every.rows, prompt_tokens=round(every.rows * every.row_tokens))
    return Estimate(rows=every.rows, calls={"model": calls})


@stage(version=1, writes=HeldOutLogLikelihood, plan=plan_score_held_out)
def score_held_out(
    ctx: Context, config: HeldOutConfig, *, answers: Artifacts, model: Model
) -> Iterator[HeldOutLogLikelihood]:
    """Yield the mean log-probability per token of held-out responses.

    It resolves far smaller differences than right or wrong, and alone distinguishes very small
    models. It measures how close a model is to these responses, not whether its own are any good.
    Rows that the model cannot score (too long for it) are counted as `failed`.
    """
    total = sum(each.num_rows for each in answers.values())
    found = model.logprobs((_request(row, config) for row in _rows(answers)), total=total)
    for row, each in zip(_rows(answers), found, strict=True):
        if each.error is not None:
            ctx.count("failed")
            continue
        yield HeldOutLogLikelihood(id=row.id, value=each.mean, num_tokens=len(each.values))


def outcomes(scores: Sequence[Artifact]) -> dict[str, float]:
    """Return the value of each item by id: 0 or 1 for right and wrong; more is better.

    Verdicts give the mean over orders, turns and repetitions: how often `b`, the model that is
    compared with the reference `a`, is preferred (a tie is one half), or its grade.
    """
    found: dict[str, float] = {}
    for artifact in scores:
        for batch in artifact.batches():
            if "winner" in batch.schema.names:
                found |= _preferences(artifact)
                break
            if "value" not in batch.schema.names:
                raise InputError(f"{artifact}: not scores (no column `value`)")
            ids, values = (batch.column(name).to_pylist() for name in ("id", "value"))
            found |= dict(zip(ids, map(float, values), strict=True))
    return found


def compare(first: Sequence[Artifact], second: Sequence[Artifact]) -> tuple[Comparison, int]:
    """Compare two models on their common items; return second minus first, and the number of items.

    Right and wrong are compared exactly (Tango's interval, McNemar's test), other measures by the
    paired t-test over items.
    """
    before, after = outcomes(first), outcomes(second)
    both = sorted(before.keys() & after.keys())
    if len(both) < 2:
        raise InputError(f"the two models have {len(both)} items in common; two are needed")
    a, b = (np.array([side[name] for name in both]) for side in (before, after))
    if np.isin(np.stack([a, b]), (0, 1)).all():
        return paired_difference(a, b), len(both)
    return paired_seed_difference(a.tolist(), b.tolist()), len(both)


def _preferences(verdicts: Artifact) -> dict[str, float]:
    """Return the mean preference, or grade, of each question; missing verdicts are passed over."""
    values: dict[str, list[float]] = defaultdict(list)
    pairs = set()
    for row in verdicts.rows(Verdict):
        pairs.add((row.a, row.b))
        value = row.score if row.winner is None else {"a": 0.0, "tie": 0.5, "b": 1.0}[row.winner]
        if value is not None:
            values[row.item_id].append(value)
    if len(pairs) > 1:
        raise InputError(f"{verdicts}: verdicts on {len(pairs)} pairs of models; one is needed")
    return {name: sum(some) / len(some) for name, some in values.items()}


def _rows(answers: Artifacts) -> Iterator[Answer]:
    return (row for row in rows_of(answers, Answer) if row.error is None)


def _request(row: Answer, config: HeldOutConfig) -> Request:
    *turns, response = row.messages
    if (system := config.system_message) is not None:
        turns = [turn for turn in turns if turn.role != "system"]
        turns = [Message(role="system", content=system), *turns] if system else turns
    return Request(id=row.id, messages=turns, continuation=response.content)
