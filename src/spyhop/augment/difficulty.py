"""Difficulty of queries, to draw by: an assistant's error rate, or a model's loss."""

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import tee

from spyhop.collect import Difficulty
from spyhop.models import Model, Request
from spyhop.schema import Answer, Config, NoConfig, Query, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.gold import read


class MeasureLossesConfig(Config):
    """Prompt of the model."""

    system_message: str = ""


@stage(version=2, writes=Difficulty, plan=lambda config, answers: Estimate(rows=answers.rows))
def measure_errors(ctx: Context, config: NoConfig, *, answers: Artifact) -> Iterator[Difficulty]:
    """Yield the share of wrong answers to every query with a gold answer, ordered by id.

    An answer that cannot be read is wrong. Failed calls and queries without a gold answer are
    ignored.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    for row in answers.rows(Answer):
        if row.error is None and row.target:
            *_, asked, said = row.messages
            reading = read(said.content, asked.content, row.target, is_whole=row.ending == "whole")
            found[row.query_id].append(reading.is_right)
    for name, right in sorted(found.items()):
        yield Difficulty(id=name, value=1 - sum(right) / len(right))


def plan_losses(config: MeasureLossesConfig, queries: Estimate, model: Estimate) -> Estimate:
    """One request per query, without generated tokens."""
    prompt_tokens = round(queries.rows * queries.row_tokens)
    calls = Calls(requests=queries.rows, prompt_tokens=prompt_tokens)
    return Estimate(rows=queries.rows, calls={"model": calls})


@stage(version=1, writes=Difficulty, plan=plan_losses)
def measure_losses(
    ctx: Context, config: MeasureLossesConfig, *, queries: Artifact, model: Model
) -> Iterator[Difficulty]:
    """Yield a model's loss per token on the gold answer of every query that has one.

    Queries that do not fit the model's context are counted as `failed`.
    """
    rows, asked = tee(row for row in queries.rows(Query) if row.target)
    system = config.system_message
    requests = (
        Request(id=row.id, messages=prompt_turns(row.query, system), continuation=row.target)
        for row in asked
    )
    found = model.logprobs(requests, total=queries.num_rows)
    for row, each in zip(rows, found, strict=True):
        if each.error is not None or math.isinf(each.mean):
            ctx.count("failed")
            continue
        yield Difficulty(id=row.id, value=-each.mean)
