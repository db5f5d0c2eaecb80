"""Whole prompts as queries: what cleaning steps read of a conversation."""

from collections.abc import Iterator

from spyhop.schema import Config, Prompt, Query
from spyhop.stage import Context, stage
from spyhop.store import Artifact


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
