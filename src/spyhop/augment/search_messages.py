"""Search for the system message that gets most verified answers from a teacher, family by family.

All messages are asked about the same queries, in batches. After each batch a message is dropped
once it is worse than the best one by a paired t-test; a family with one message left is asked no
more.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from spyhop.augment.answer import AnswerConfig, plan_answer
from spyhop.collect import MessageRate, SystemMessage
from spyhop.models import Model, Request, Sampling
from spyhop.models.script import Failures
from spyhop.schema import Config, InputError, Query, prompt_turns
from spyhop.stage import Context, Estimate, stage
from spyhop.statistics import paired_seed_difference
from spyhop.store import Artifact
from spyhop.text.gold import is_right

LOOKS = 5
"""Batches, after each of which messages are dropped."""
LEVEL = 0.05
"""Of all tests of a family together (Bonferroni)."""
Replies = npt.NDArray[np.float64]
"""Of one message: verified (0 or 1) and written tokens of each query, (queries, 2); failed calls
are nan."""


class SearchMessagesConfig(Config):
    """Messages, and what is compared."""

    messages: tuple[SystemMessage, ...] = Field(min_length=2)
    family: Literal["task", "collection"] = "task"
    """Queries that share a message."""
    per: Literal["token", "query"] = "token"
    """Whether messages are compared by verified answers per token that the teacher writes, or per
    query."""
    sampling: Sampling = Sampling()


def plan_search(config: SearchMessagesConfig, queries: Estimate, teacher: Estimate) -> Estimate:
    """Every query under every message: an upper bound, since messages are dropped."""
    how = AnswerConfig(num_samples=len(config.messages), sampling=config.sampling)
    return replace(plan_answer(how, queries, teacher), rows=len(config.messages))


@stage(version=1, writes=MessageRate, plan=plan_search)
def search_messages(
    ctx: Context, config: SearchMessagesConfig, *, queries: Artifact, teacher: Model
) -> Iterator[MessageRate]:
    """Yield one row per family and message: its verified answers, and whether it is still best.

    Several messages of a family are `is_best` if the queries do not resolve which one is. Messages
    for multiple choice alone are not searched.

    Raises:
        InputError: If no query has a gold answer.
    """
    drawn = defaultdict[str, list[Query]](list)
    for query in queries.rows(Query):
        if query.target:
            drawn[getattr(query, config.family)].append(query)
    if not drawn:
        raise InputError(f"{queries.name}: no query has a gold answer to verify answers by")
    messages = [each for each in config.messages if not each.is_multiple_choice_only]
    found = {name: {each.id: np.empty((0, 2)) for each in messages} for name in drawn}
    best = {name: [each.id for each in messages] for name in drawn}
    failures = Failures(teacher.label, ctx.runtime.max_error_frac)
    for look in range(LOOKS):
        asked = [
            (name, message, query)
            for name, family in drawn.items() if len(best[name]) > 1
            for message in messages if message.id in best[name]
            for query in family[look::LOOKS]
        ]  # fmt: skip
        requests = (
            Request(id=str(place), messages=prompt_turns(query.query, message.text))
            for place, (_, message, query) in enumerate(asked)
        )
        batch = defaultdict[tuple[str, str], list[tuple[float, float]]](list)
        replies = teacher.generate(requests, config.sampling, total=len(asked))
        for (name, message, query), reply in zip(asked, replies, strict=True):
            failures.see(reply.error)
            right = reply.ending == "whole" and is_right(reply.text, query.query, query.target)
            missing = reply.error is not None
            figures = (np.nan, np.nan) if missing else (float(bool(right)), reply.response_tokens)
            batch[name, message.id].append(figures)
        for (name, system_id), rows in batch.items():
            found[name][system_id] = np.concatenate([found[name][system_id], rows])
        for name in dict.fromkeys(name for name, _ in batch):
            left = {system_id: found[name][system_id] for system_id in best[name]}
            best[name] = still_best(left, config.per, LEVEL / (LOOKS * max(1, len(messages) - 1)))
    failures.check()
    for name, by_message in found.items():
        ids = [query.id for query in drawn[name]]
        for system_id, replies_Q2 in by_message.items():
            right, tokens = np.nansum(replies_Q2, axis=0).tolist()
            yield MessageRate(
                id=f"{name}/{system_id}", family=name, system_id=system_id, num_right=int(right),
                num_asked=int((~np.isnan(replies_Q2[:, 0])).sum()), tokens=int(tokens),
                is_best=system_id in best[name], query_ids=ids,
            )  # fmt: skip


def still_best(replies: Mapping[str, Replies], per: str, level: float) -> list[str]:
    """Return the messages that are not worse than the best one by a paired t-test at that level.

    With `per` token, a query's value is what it has above the best message's rate: its verified
    answer minus rate times tokens (the linear part of a ratio's difference).
    """
    rates = {}
    for name, each in replies.items():
        right, tokens = np.nansum(each, axis=0)
        num_asked = np.isfinite(each[:, 0]).sum()
        rates[name] = float(right / max(1.0, tokens if per == "token" else num_asked))
    first = max(rates, key=lambda name: rates[name])
    price = rates[first] if per == "token" else 0.0
    values = {name: each[:, 0] - price * each[:, 1] for name, each in replies.items()}

    def is_worse(name: str) -> bool:
        both = np.stack([values[first], values[name]])
        both = both[:, ~np.isnan(both).any(axis=0)]
        if (num := both.shape[1]) < 2:
            return False
        test = paired_seed_difference(*both.tolist())  # p is 0 without spread: no test of a few
        return test.difference.value < 0 and max(test.p_value, 2.0 ** (1 - num)) < level

    return [name for name in values if name == first or not is_worse(name)]
