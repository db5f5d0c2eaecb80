"""Select the teacher's prompts: those that the teaching assistant found hard.

Source: Orca (arXiv:2306.02707), section 3, where the teacher's prompts are drawn at random.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from spyhop.schema import Answer, Config, InputError, Prompt
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, Artifacts, number_of
from spyhop.text.gold import is_right, stated

NAMES = {
    "wrong": ("right", "wrong"),
    "disagreement": ("agreed", "split"),
    "confidence": ("known", "known"),
}
"""Names in the counts of prompts with hardness 0, and above 0."""


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
