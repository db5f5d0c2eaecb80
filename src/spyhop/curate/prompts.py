"""Select prompts: those that the teaching assistant found hard, or where a student fails."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, partial
from itertools import compress
from sys import intern
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from spyhop.collect import Stratum
from spyhop.collect.table import class_names, class_sql
from spyhop.lazy import duckdb
from spyhop.schema import Answer, Config, InputError, NoConfig, Prompt
from spyhop.stage import TABLES, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, Artifacts, number_of
from spyhop.text.gold import is_right, stated

NAMES = {
    "wrong": ("right", "wrong"),
    "disagreement": ("agreed", "split"),
    "confidence": ("known", "known"),
}
"""Names in the counts of prompts with hardness 0, and above 0."""
_QUERY = "list_filter(messages, lambda turn: turn.role = 'user')[-1].content"


class SelectHardestConfig(Config):
    """Measure of hardness, and how many prompts to keep."""

    by: Literal["wrong", "disagreement", "confidence"] = "wrong"
    """`wrong`: share of the assistant's samples that do not state the gold answer. `disagreement`:
    share that differs from the prompt's most frequent answer; needs several samples per prompt.
    `confidence`: negative mean log-probability per token."""
    num_rows: int = Field(gt=0)
    """Number of rows to keep; all if there are fewer."""
    seed: int = 0
    """Seed of the sample among equally hard prompts."""


@stage(
    version=2,
    writes=Prompt,
    plan=lambda config, prompts, answers: Estimate(
        rows=min(config.num_rows, prompts.rows), row_tokens=prompts.row_tokens
    ),
)
def select_hardest(
    ctx: Context, config: SelectHardestConfig, *, prompts: Artifact, answers: Artifacts
) -> Iterator[Prompt]:
    """Keep the prompts that the assistant found hardest, in the order of the input.

    Equally hard prompts are sampled by a hash of (seed, id). A response without a readable answer
    (also if cut, refused or empty) counts as wrong, and agrees with no other sample. A failed call
    is ignored. Prompts of unknown hardness rank last. Some 300 bytes a row in memory.

    Source: Orca (arXiv:2306.02707), section 3, where the teacher's prompts are drawn at random.

    Counts: `kept/<group>` and `left/<group>` for the groups `wrong` and `right`, `split` and
    `agreed`, or `known`, and `unknown`; `samples/failed`, `samples/no_gold`, and `samples/foreign`
    for answers to other prompts.
    """
    names = [name for batch in prompts.batches(["id"]) for name in batch["id"].to_pylist()]
    ids = [number_of(name) for name in names]
    known = _hardness(ctx, config, set(ids), answers)
    hardness = np.array([known.get(name, -np.inf) for name in ids])
    if ids and not known:
        raise InputError(
            f"by = {config.by!r}: no answer measures the hardness of these prompts: "
            f"{ctx.counts['samples/failed']} failed, {ctx.counts['samples/no_gold']} have no gold "
            f"answer, {ctx.counts['samples/foreign']} answer other prompts"
            + ("; set num_samples to 2 or more" if config.by == "disagreement" else "")
        )
    draws = np.array([number_of(f"{config.seed}/{name}") for name in names], np.uint64)
    is_kept = np.zeros(len(hardness), dtype=np.bool_)
    is_kept[np.lexsort((draws, -hardness))[: config.num_rows]] = True
    rows = ctx.track(prompts.rows(Prompt), "choosing", total=len(hardness))
    for row, kept, value in zip(rows, is_kept, hardness, strict=True):
        what = "unknown" if np.isneginf(value) else NAMES[config.by][int(value > 0)]
        ctx.count(f"{'kept' if kept else 'left'}/{what}")
        if kept:
            yield row


def _hardness(
    ctx: Context, config: SelectHardestConfig, ids: set[int], answers: Artifacts
) -> dict[int, float]:
    """Return the hardness of the prompts with a known one, by the number of their id."""
    measures: dict[int, list[float]] = defaultdict(list)
    for artifact in answers.values():
        for row in ctx.track(artifact.rows(Answer), "reading", total=artifact.num_rows):
            end = f".{row.sample_index}" if row.sample_index else ""  # of a further sample's id
            stems = number_of(row.id.removesuffix(end)), number_of(row.id)
            name = next((stem for stem in stems if stem in ids), None)
            if name is None:
                ctx.count("samples/foreign")
            elif row.error is not None or not row.messages or row.messages[-1].role != "assistant":
                ctx.count("samples/failed")
            elif config.by == "wrong" and not row.target:
                ctx.count("samples/no_gold")
            else:
                measures[name].append(_measure(config.by, row))
    if config.by != "disagreement":
        return {name: sum(each) / len(each) for name, each in measures.items()}
    return {
        name: 1 - max(Counter(filter(None, each)).values(), default=0) / len(each)
        for name, each in measures.items()
        if len(each) > 1
    }


def _measure(by: str, row: Answer) -> float:
    """Return whether an answer is wrong, the number of what it states (or 0), or its surprise."""
    if by == "confidence":
        if row.log_probability is None:
            raise InputError(
                f"answer {row.id} has no log-probability: set sampling.log_probability = true for "
                f"{row.model} (if its endpoint returns them), or choose another `by`"
            )
        return -row.log_probability / max(1, row.response_tokens)
    response = row.messages[-1].content if row.ending == "whole" else ""
    question = next((turn.content for turn in row.messages[-2:-1]), "")
    if by == "wrong":
        return float(not is_right(response, question, row.target))
    answer = stated(response, question, row.target)
    return 0 if answer is None else number_of(answer)


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
    known: Artifacts | None = None,
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
    named = cache(partial(class_names, config.strata))
    with duckdb.connect(config={"threads": 1, "memory_limit": "512MB"}) as base:
        for batch in rows.batches(["id", "query_id", "task", "messages"]):
            base.register("part", pa.Table.from_batches([batch]))
            sql = f"SELECT id, query_id, task, {class_sql(config.strata)} FROM ({query})"
            for row_id, query_id, task, place in base.sql(sql).fetchall():
                classes = named(place)
                yield row_id, query_id, f"{task}, {classes}" if classes else task


@stage(version=1, writes=TABLES, plan=lambda config, rows: sum_estimates(rows.values()))
def join_rows(ctx: Context, config: NoConfig, *, rows: Artifacts) -> Iterable[pa.RecordBatch]:
    """Write the rows of several artifacts of one type, one artifact after the other."""
    for each in rows.values():
        yield from each.batches()
