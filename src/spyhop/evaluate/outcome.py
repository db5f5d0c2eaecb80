"""What a model scored, item by item, whatever the measure: right or wrong, or a likelihood."""

from collections.abc import Iterator, Sequence

import numpy as np

from spyhop.models import Model, Request
from spyhop.schema import Answer, Config, InputError, Message, Row
from spyhop.stage import Calls, Context, Estimate, pooled, stage
from spyhop.statistics import Comparison, paired_difference, paired_seed_difference
from spyhop.store import Artifact

COLUMNS = ("correct", "value")
"""Where a measure's rows hold what an item scored; more is better."""


class Fit(Row):
    """How well a model expects one response; `value` is its mean log-probability a token."""

    value: float
    num_tokens: int


class FitConfig(Config):
    """How the model is asked."""

    system_message: str | None = None
    """In place of the rows' own; None keeps theirs."""


def plan_fit(config: FitConfig, answers: list[Estimate], model: Estimate) -> Estimate:
    """One request per row, of which nothing is written."""
    rows = pooled(answers)
    calls = Calls(
        requests=rows.rows,
        prompt_tokens=round(rows.rows * rows.row_tokens),
        response_tokens=0,
        most_response_tokens=0,
    )
    return Estimate(rows=rows.rows, calls={"model": calls})


@stage(version=1, writes=Fit, plan=plan_fit)
def fit(ctx: Context, config: FitConfig, *, answers: list[Artifact], model: Model) -> Iterator[Fit]:
    """Weigh held-out responses: natural log-probability a token, end token included.

    Far finer than right or wrong, and the only measure that tells very small models apart; it
    says how near a model is to these responses, not whether its own would be any good. Rows that
    the model cannot weigh (too long for it) are counted as `failed`.
    """
    total = sum(each.num_rows for each in answers)
    found = model.logprobs((_request(row, config) for row in _rows(answers)), total=total)
    for row, each in zip(_rows(answers), found, strict=True):
        if each.error is not None:
            ctx.count("failed")
            continue
        yield Fit(id=row.id, value=each.mean, num_tokens=len(each.values))


def outcomes(scores: Sequence[Artifact]) -> dict[str, float]:
    """Return what each item scored, by id: 0 or 1 for right and wrong, else the measure's value.

    Raises:
        InputError: If the rows are of no measure.
    """
    found: dict[str, float] = {}
    for artifact in scores:
        for batch in artifact.batches():
            columns = [name for name in COLUMNS if name in batch.schema.names]
            if not columns:
                raise InputError(f"{artifact}: has none of the columns {', '.join(COLUMNS)}")
            values = batch.column(columns[0]).to_pylist()
            found |= dict(zip(batch.column("id").to_pylist(), map(float, values), strict=True))
    return found


def compare(first: Sequence[Artifact], second: Sequence[Artifact]) -> tuple[Comparison, int]:
    """Compare two models on the items that both were asked; second minus first, and their number.

    Right and wrong are compared exactly (Tango's interval, McNemar's test), other measures by the
    paired t-test over items.

    Raises:
        InputError: If there are fewer than two items in common.
    """
    before, after = outcomes(first), outcomes(second)
    both = sorted(before.keys() & after.keys())
    if len(both) < 2:
        raise InputError(f"{len(both)} items were asked of both models; two are needed at least")
    a = np.array([before[name] for name in both])
    b = np.array([after[name] for name in both])
    if np.isin(np.stack([a, b]), (0, 1)).all():
        return paired_difference(a, b), len(both)
    return paired_seed_difference(a.tolist(), b.tolist()), len(both)


def _rows(answers: Sequence[Artifact]) -> Iterator[Answer]:
    for artifact in answers:
        yield from (row for row in artifact.rows(Answer) if row.error is None)


def _request(row: Answer, config: FitConfig) -> Request:
    turns = list(row.messages[:-1])
    if config.system_message is not None:
        turns = [turn for turn in turns if turn.role != "system"]
        if config.system_message:
            turns.insert(0, Message(role="system", content=config.system_message))
    return Request(id=row.id, messages=turns, continuation=row.messages[-1].content)
