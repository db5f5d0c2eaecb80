"""Draw further prompts where a student fails, by strata of its measured errors, or at random."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from sys import intern

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from spyhop.collect import Stratum
from spyhop.collect.table import class_names, class_sql
from spyhop.lazy import duckdb
from spyhop.schema import Answer, Config, InputError, NoConfig, Prompt
from spyhop.stage import TABLES, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, number_of
from spyhop.text.gold import is_right

_QUERY = "list_filter(messages, lambda turn: turn.role = 'user')[-1].content"


class DrawFailingConfig(Config):
    """How many prompts to draw, and the strata in which errors are measured."""

    num_rows: int = Field(gt=0)
    """Prompts to draw; all that are left if there are fewer."""
    strata: tuple[Stratum, ...] = ()
    """Classes within each task. Default: the tasks alone."""
    seed: int = 0

    @model_validator(mode="after")
    def _is_measured(self) -> "DrawFailingConfig":
        if any(stratum.by == "difficulty" for stratum in self.strata):
            raise ValueError("by = 'difficulty' is measured here; use length, complexity or topic")
        return self


@stage(
    version=1,
    writes=Prompt,
    plan=lambda config, prompts, known=None, answers=None: Estimate(
        rows=min(config.num_rows, prompts.rows), row_tokens=prompts.row_tokens
    ),
)
def draw_failing(
    ctx: Context,
    config: DrawFailingConfig,
    *,
    prompts: Artifact,
    known: Mapping[str, Artifact] | None = None,
    answers: Artifact | None = None,
) -> Iterator[Prompt]:
    """Draw prompts whose queries are not `known`, in the order of the input.

    Each prompt's weight is the error rate of its stratum in `answers`, a student's answers to
    development prompts; without them all weights are equal. A stratum's rate is shrunk towards the
    overall rate by one answer's weight, so that a stratum without answers has the overall rate.
    Failed calls and answers without a gold answer are ignored. A larger draw contains a smaller
    one.

    Counts: by stratum `dev/<stratum>` (answers), `wrong/<stratum>`, `left/<stratum>` (prompts that
    are not known) and `drawn/<stratum>`.

    Source: Efraimidis and Spirakis (2006), weighted random sampling without replacement.
    """
    rates = {} if answers is None else _error_rates(ctx, config, answers)
    taken = {
        number_of(name)
        for each in (known or {}).values()
        for batch in each.batches(["query_id"])
        for name in batch["query_id"].to_pylist()
    }
    strata, keys = list[str](), list[float]()
    for row_id, query_id, stratum in _strata(prompts, config):
        level = (number_of(f"{config.seed}/{row_id}") + 1) / (2**64 + 1)
        weight = rates.get(stratum, rates.get("", 1.0))
        strata.append(intern(stratum))
        keys.append(np.inf if number_of(query_id) in taken else -np.log(level) / weight)
    is_left = np.isfinite(keys)
    is_drawn = np.zeros(len(keys), dtype=np.bool_)
    is_drawn[np.argsort(keys, kind="stable")[: config.num_rows]] = True
    is_drawn &= is_left
    for kind, mask in (("left", is_left), ("drawn", is_drawn)):
        for stratum, num in Counter(compress(strata, mask)).items():
            ctx.count(f"{kind}/{stratum}", num)
    if (num := int(is_drawn.sum())) < config.num_rows:
        ctx.notice(f"only {num:,} of {config.num_rows:,} prompts are left to draw")
    yield from compress(ctx.track(prompts.rows(Prompt), "drawing", total=len(keys)), is_drawn)


def _error_rates(ctx: Context, config: DrawFailingConfig, answers: Artifact) -> dict[str, float]:
    """Return the shrunk error rate of each stratum, and the overall rate under an empty name."""
    asked, wrong = Counter[str](), Counter[str]()
    for row, (*_, stratum) in zip(answers.rows(Answer), _strata(answers, config), strict=True):
        if row.error is None and row.target:
            *_, question, said = row.messages
            right = row.ending == "whole" and is_right(said.content, question.content, row.target)
            asked[stratum] += 1
            wrong[stratum] += not right
    if not asked:
        raise InputError(
            f"{answers.name}: no answer can be checked; development prompts need gold answers"
        )
    overall = max(wrong.total(), 0.5) / asked.total()  # above 0, also where no answer is wrong
    for stratum, num in asked.items():
        ctx.count(f"dev/{stratum}", num)
        ctx.count(f"wrong/{stratum}", wrong[stratum])
    return {"": overall} | {
        stratum: (wrong[stratum] + overall) / (num + 1) for stratum, num in asked.items()
    }


def _strata(rows: Artifact, config: DrawFailingConfig) -> Iterator[tuple[str, str, str]]:
    """Yield id, query's id and stratum of prompts or answers, in order."""
    query = f"SELECT id, query_id, task, {_QUERY} AS query FROM part"
    with duckdb.connect(config={"threads": 1, "memory_limit": "512MB"}) as base:
        for batch in rows.batches(["id", "query_id", "task", "messages"]):
            base.register("part", pa.Table.from_batches([batch]))
            sql = f"SELECT id, query_id, task, {class_sql(config.strata)} FROM ({query})"
            for row_id, query_id, task, place in base.sql(sql).fetchall():
                classes = class_names(config.strata, place)
                yield row_id, query_id, f"{task}, {classes}" if classes else task


@stage(version=1, writes=TABLES, plan=lambda config, rows: sum_estimates(rows.values()))
def join_rows(
    ctx: Context, config: NoConfig, *, rows: Mapping[str, Artifact]
) -> Iterable[pa.RecordBatch]:
    """Write the rows of several artifacts of one type, one artifact after the other."""
    for each in rows.values():
        yield from each.batches()
