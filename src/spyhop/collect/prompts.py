"""Prompts: queries under system messages, nested subsets of prompts, whole prompts as queries.

Source: Orca (arXiv:2306.02707), section 3.1.1, Table 2 (roles) and Figure 6 (shares).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import compress
from typing import Literal

from pydantic import Field, model_validator

from spyhop.models.replay import Recorded
from spyhop.schema import (
    Config,
    InputError,
    NoConfig,
    Prompt,
    Query,
    RecipeError,
    Row,
    prompt_turns,
)
from spyhop.stage import CHARS_PER_TOKEN, Context, Estimate, stage
from spyhop.store import Artifact, Artifacts, nested_draw, number_of, row_id, rows_of
from spyhop.text.tables import table


class SystemMessage(Config):
    """A system message. An empty text means that the prompt has no system turn."""

    id: str
    """Name of the message in `shares` and in rows."""
    text: str
    """Text of the message; an empty text means a prompt without a system message."""
    is_multiple_choice_only: bool = False
    """Given to multiple-choice queries only, as `PairConfig.choice_rule` says."""


class PairConfig(Config):
    """System messages and how often each is used in each collection."""

    messages: tuple[SystemMessage, ...] = Field(min_length=1)
    shares: dict[str, dict[str, float]]
    """Collection to message id to weight. The name `*` means any other collection."""
    choice_rule: Literal["among_all", "always"] = "among_all"
    """Two readings of the paper's Figure 6, which cannot tell them apart: a multiple-choice query
    chooses among all messages of its collection (half of Flan 2021 is multiple choice then), or
    always gets one of those for multiple choice, where there is one (a fifth is)."""
    seed: int = 0

    @model_validator(mode="after")
    def _names_are_known(self) -> "PairConfig":
        known = sorted(message.id for message in self.messages)
        if len(set(known)) < len(known):
            raise ValueError(f"two system messages have the same id: {known}")
        for collection, weights in self.shares.items():
            if unknown := sorted(set(weights) - set(known)):
                raise ValueError(
                    f"shares of collection {collection!r} name the system messages {unknown}; "
                    f"known: {known}"
                )
        return self


class MessageRate(Row):
    """What a system message got from a teacher on a family of queries (`augment`'s search)."""

    family: str
    """Task or collection."""
    system_id: str
    num_asked: int
    num_right: int
    """Answers that state the gold answer."""
    tokens: int
    """Tokens that the teacher wrote."""
    is_best: bool
    """Whether no other message of the family is shown to be better."""
    query_ids: list[str]
    """Queries of the search, which are not paired."""


def orca_messages() -> tuple[SystemMessage, ...]:
    """Return the sixteen roles of the Orca paper, in our own words."""
    given = table("collect/orca_messages.toml")["messages"]
    return tuple(SystemMessage(**message) for message in given)


def orca_shares() -> dict[str, dict[str, float]]:
    """Return the paper's weights per collection (Figure 6)."""
    given = table("collect/orca_messages.toml")["shares"]
    return {name: dict(shares) for name, shares in given.items()}


def plan_pair(config: PairConfig, queries: Estimate, **_: object) -> Estimate:
    """One prompt per query, longer by a system message."""
    chars = sum(len(message.text) for message in config.messages) / len(config.messages)
    tokens = queries.row_tokens and queries.row_tokens + chars / CHARS_PER_TOKEN
    return Estimate(rows=queries.rows, row_tokens=tokens)


@stage(version=1, writes=Prompt, plan=plan_pair)
def pair(
    ctx: Context,
    config: PairConfig,
    *,
    queries: Artifact,
    own: Artifacts | None = None,
    searched: Artifact | None = None,
) -> Iterator[Prompt]:
    """Pair every query with one system message.

    The choice is a function of (query id, seed), so adding rows changes no other row. A query that
    was written from a prompt in `own` becomes that prompt again, with all its turns; it is paired
    only if it has no system message. These prompts are held in memory.

    With a search for messages (`searched`), queries get one of the best messages of their task or
    collection, all of them as often; the search's own queries are skipped and counted.
    """
    prompts: dict[str, Prompt] = {}
    for prompt in rows_of(own, Prompt):
        if prompts.setdefault(prompt.id, prompt) is not prompt:
            raise InputError(
                f"two collections have a prompt with the id {prompt.id!r:.60}; remove ids: "
                "prompts are then named by their messages"
            )
    messages = {message.id: message for message in config.messages}
    best, held_out = defaultdict[str, dict[str, float]](dict), set[str]()
    for rate in searched.rows(MessageRate) if searched else ():
        held_out.update(rate.query_ids)
        if rate.is_best:
            best[rate.family][rate.system_id] = 1.0
    for query in ctx.track(queries.rows(Query), "pairing", total=queries.num_rows):
        if query.id in held_out:
            ctx.count("searched")
            continue
        given = prompts.get(query.id)
        if given is not None and given.messages[0].role == "system":
            ctx.count(f"system_message/{query.collection}/own")
            yield given.model_copy(update={"collection": query.collection})
            continue
        weights = best.get(query.task) or best.get(query.collection)
        weights = weights or _allowed(config, messages, query)
        chosen = messages[_choose(weights, f"{config.seed}/{query.id}")]
        ctx.count(f"system_message/{query.collection}/{chosen.id}")
        ctx.count(f"multiple_choice/{query.collection}", int(query.multiple_choice))
        turns = prompt_turns(query.query, chosen.text)
        yield Prompt(
            id=row_id(query.id, chosen.text),
            query_id=query.id,
            collection=query.collection,
            task=query.task,
            system_id=chosen.id,
            messages=[*turns[:-1], *given.messages] if given else turns,
            target=query.target,
        )


def _allowed(
    config: PairConfig, messages: Mapping[str, SystemMessage], query: Query
) -> dict[str, float]:
    shares = config.shares.get(query.collection, config.shares.get("*"))
    if shares is None:
        raise RecipeError(
            f"no shares of system messages for collection {query.collection!r}; "
            f"known: {sorted(config.shares)} (the name '*' means any other)"
        )
    used = {name: weight for name, weight in shares.items() if weight > 0}
    only = {n: weight for n, weight in used.items() if messages[n].is_multiple_choice_only}
    if not query.multiple_choice:
        allowed = {name: weight for name, weight in used.items() if name not in only}
    else:
        allowed = (config.choice_rule == "always" and only) or used
    if not allowed:
        raise RecipeError(f"collection {query.collection!r} has no system message for {query.id}")
    return allowed


def _choose(weights: Mapping[str, float], text: str) -> str:
    level = number_of(text) / 2**64 * sum(weights.values())
    for name in sorted(weights):
        level -= weights[name]
        if level < 0:
            return name
    return max(weights)


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
    """Keep a uniform random subset, in the order of the input; it contains any smaller one."""
    is_drawn = nested_draw(prompts, config.num_rows, config.seed)
    rows = ctx.track(prompts.rows(Prompt), "sampling", total=len(is_drawn))
    yield from compress(rows, is_drawn)


@stage(version=1, writes=Prompt, plan=lambda config, prompts, recorded: prompts)
def keep_recorded(
    ctx: Context, config: NoConfig, *, prompts: Artifact, recorded: Artifact
) -> Iterator[Prompt]:
    """Keep the prompts that have a recorded answer, such as a human explanation."""
    known = {row_id(row.query) for row in recorded.rows(Recorded)}
    for prompt in ctx.track(prompts.rows(Prompt), "choosing", total=prompts.num_rows):
        if row_id(prompt.messages[-1].content) in known:
            yield prompt


class PromptQueriesConfig(Config):
    """Collection of the queries."""

    collection: str
    """Collection name that rows get."""


@stage(version=1, writes=Query, plan=lambda config, prompts: prompts)
def prompt_queries(
    ctx: Context, config: PromptQueriesConfig, *, prompts: Artifact
) -> Iterator[Query]:
    """Write all turns of each prompt as one text, so that copies and evaluation items are found.

    `pair` turns a query that is left into its prompt again, by its id.
    """
    for prompt in ctx.track(prompts.rows(Prompt), "reading", total=prompts.num_rows):
        yield Query(
            id=prompt.id,
            collection=config.collection,
            task=prompt.task,
            query="\n\n".join(turn.content for turn in prompt.messages),
            target=prompt.target,
        )
