"""Prompts: subsets that stay nested when their size changes, and whole prompts as queries."""

from collections.abc import Iterator
from itertools import compress

from pydantic import Field

from spyhop.schema import Config, Prompt, Query
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, nested_draw


class SubsetConfig(Config):
    """How many prompts are taken."""

    num_rows: int = Field(gt=0)
    """Rows to keep; all of them where there are fewer."""
    seed: int = 0


@stage(
    version=1,
    writes=Prompt,
    plan=lambda config, prompts: Estimate(
        rows=min(config.num_rows, prompts.rows), row_tokens=prompts.row_tokens
    ),
)
def draw_subset(ctx: Context, config: SubsetConfig, *, prompts: Artifact) -> Iterator[Prompt]:
    """Keep a uniform random subset, in the order of the input.

    A smaller subset is part of a larger one, and the rows' order does not matter.
    """
    is_drawn = nested_draw(prompts, config.num_rows, config.seed)
    rows = ctx.track(prompts.rows(Prompt), "sampling", total=len(is_drawn))
    yield from compress(rows, is_drawn)


class PromptQueriesConfig(Config):
    """Collection of the queries."""

    collection: str
    """Collection name that rows get."""


@stage(version=1, writes=Query, plan=lambda config, prompts: prompts)
def prompt_queries(
    ctx: Context, config: PromptQueriesConfig, *, prompts: Artifact
) -> Iterator[Query]:
    """Write all turns of each prompt as one text, so that copies and evaluation items are found.

    Ids are those of the prompts: `pair` turns a query that is left into its prompt again.
    """
    for prompt in ctx.track(prompts.rows(Prompt), "reading", total=prompts.num_rows):
        yield Query(
            id=prompt.id,
            collection=config.collection,
            task=prompt.task,
            query="\n\n".join(turn.content for turn in prompt.messages),
            target=prompt.target,
        )
