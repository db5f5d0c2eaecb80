"""How likely a model finds texts: held-out responses, and texts under their own instructions.

The round trip measures Humpback's first assumption: from the instruction that was written for a
text, its own text is picked among texts that are near it, by likelihood. An instruction that fits
any text on the subject picks at random.

Source: Humpback (arXiv:2308.06259), section 2: some segments are answers to instructions that can
be written for them.
"""

from collections.abc import Iterator
from heapq import nsmallest

import numpy as np
from pydantic import Field

from spyhop.models import Model, Request
from spyhop.schema import Answer, Config, Message, Pair, Row, Score, prompt_turns
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, Estimates, stage, sum_estimates
from spyhop.statistics.linear import features
from spyhop.store import Artifact, Artifacts, number_of, rows_of

SUITE, METRIC = "round_trip", "acc_mutual_info"
TEXT_CHARS = 1000
"""Characters from the beginning of a text that are scored."""
BASELINE = "Write a text."
"""An instruction without content. What a text is likelier under its own instruction than under this
one decides, since some texts are likely under any."""


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


def _rows(answers: Artifacts) -> Iterator[Answer]:
    return (row for row in rows_of(answers, Answer) if row.error is None)


def _request(row: Answer, config: HeldOutConfig) -> Request:
    *turns, response = row.messages
    if (system := config.system_message) is not None:
        turns = [turn for turn in turns if turn.role != "system"]
        turns = [Message(role="system", content=system), *turns] if system else turns
    return Request(id=row.id, messages=turns, continuation=response.content)


class RoundTripConfig(Config):
    """Which texts are compared."""

    num_rows: int = Field(200, ge=1)
    """Instructions that are tested, drawn by hash."""
    num_near: int = Field(4, ge=1)
    """Other texts that each text is picked among: those that share most of its words."""
    pool: int = Field(5000, ge=2)
    """Texts among which the near ones are looked for, drawn by hash."""


def plan_round_trip(config: RoundTripConfig, pairs: Estimate, model: Estimate) -> Estimate:
    """Two calls for each text of each instruction."""
    rows = min(config.num_rows, pairs.rows)
    requests = 2 * rows * (1 + config.num_near)
    calls = Calls(requests=requests, prompt_tokens=round(requests * TEXT_CHARS / CHARS_PER_TOKEN))
    return Estimate(rows=rows, calls={"model": calls})


@stage(version=1, writes=Score, plan=plan_round_trip)
def round_trip(
    ctx: Context, config: RoundTripConfig, *, pairs: Artifact, model: Model
) -> Iterator[Score]:
    """Yield one row per instruction: whether its own text has the highest gain in likelihood.

    `metrics` also hold the plain sum of log-probabilities (`acc`).
    Where there are fewer other texts than `num_near`, all of them are compared; no row without any.
    """
    texts: dict[str, Pair] = {}
    for row in pairs.rows(Pair):
        texts.setdefault(row.response[:TEXT_CHARS], row)
    rows = nsmallest(config.pool, texts.values(), key=lambda row: number_of(f"round trip/{row.id}"))
    shown = [row.response[:TEXT_CHARS] for row in rows]
    near = _near(shown, config)
    requests = [
        Request(
            id=f"{place}/{other}/{kind}", messages=prompt_turns(asked), continuation=shown[other]
        )
        for place, others in enumerate(near)
        for other in (place, *others)
        for kind, asked in enumerate((rows[place].instruction, BASELINE))
    ]
    found = model.logprobs(requests, total=len(requests))
    for place, others in enumerate(near):
        taken = [(next(found), next(found)) for _ in (place, *others)]
        errors = [each.error for both in taken for each in both if each.error is not None]
        own = np.array([sum(both[0].values) for both in taken])
        values = {"acc": own, METRIC: own - [sum(both[1].values) for both in taken]}
        # The place of the highest value; a tie is not for the own text, which is the first.
        picks = {n: len(each) - 1 - int(each[::-1].argmax()) for n, each in values.items()}
        yield Score(
            id=rows[place].id, suite=SUITE, task=SUITE, target=rows[place].id,
            passage=rows[place].origin, chance=1 / (1 + len(others)),
            response="", response_tokens=0, finish_reason="likelihood",
            extracted=None if errors else rows[(place, *others)[picks[METRIC]]].id,
            correct=not errors and picks[METRIC] == 0, metric=METRIC,
            metrics={name: float(not errors and pick == 0) for name, pick in picks.items()},
            error=errors[0] if errors else None, ending="failed" if errors else "whole",
        )  # fmt: skip


def _near(texts: list[str], config: RoundTripConfig) -> list[list[int]]:
    """Return the places of the texts nearest to each of the first ones, by shared words."""
    matrix, most = features(texts), min(config.num_near, len(texts) - 1)
    found: list[list[int]] = []
    for place in range(min(config.num_rows, len(texts)) if len(texts) > 1 else 0):
        likeness = (matrix @ matrix[place].T).toarray()[:, 0]
        likeness[place] = -1
        found.append(np.argsort(-likeness, kind="stable")[:most].tolist())
    return found
