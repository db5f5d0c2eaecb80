"""Ask a model the items of a benchmark and score what it says by rule.

Source: Orca (arXiv:2306.02707), section 4.2.2: zero-shot, one user turn, exact match.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pydantic import Field

from spyhop.evaluate.items import read_agieval, read_bbh
from spyhop.models import Model, Request, Sampling
from spyhop.schema import Config, Ending, Item, Message, RecipeError, Score
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.extract import choice, final_answer, first_capital, matches

ITEM_TOKENS = 300
TOKENS_PER_S = 50_000
"""Planning figures: a usual item, and a model of a million parameters on one core."""


class ItemsConfig(Config):
    """Which items are read."""

    tasks: tuple[str, ...] | None = None
    """Names of tasks; None takes those of the Orca paper."""
    limit: int | None = Field(None, gt=0)
    """At most so many items per task: a fixed random sample, nested in larger ones."""


class MeasureConfig(Config):
    """How a model is asked and its answer read."""

    system_message: str = ""
    """Orca's default is the empty one."""
    method: Literal["generate", "choose"] = "generate"
    """`choose` takes the option of the highest probability: it cannot fail to answer."""
    extract: Literal["stated", "first_capital"] = "stated"
    """How a choice is read: an explicit statement, or the paper's first capital letter."""
    sampling: Sampling = Sampling(max_new_tokens=256)


def _plan_items(num_items: int, num_tasks: int) -> Callable[..., Estimate]:
    def plan(config: ItemsConfig, folder: Estimate) -> Estimate:
        share = num_items if config.tasks is None else num_items * len(config.tasks) // num_tasks
        tasks = len(config.tasks) if config.tasks else num_tasks
        return Estimate(rows=share if config.limit is None else min(share, config.limit * tasks))

    return plan


@stage(version=1, writes=Item, plan=_plan_items(5511, 23))
def bbh(ctx: Context, config: ItemsConfig, *, folder: Artifact) -> Iterator[Item]:
    """Read BIG-Bench-Hard: the 23 multiple-choice tasks of the Orca paper's Table 11."""
    return read_bbh(folder.path, tasks=config.tasks, limit=config.limit)


@stage(version=1, writes=Item, plan=_plan_items(2546, 8))
def agieval(ctx: Context, config: ItemsConfig, *, folder: Artifact) -> Iterator[Item]:
    """Read AGIEval: the eight English multiple-choice tasks of the Orca paper's Table 8."""
    return read_agieval(folder.path, tasks=config.tasks, limit=config.limit)


def plan_measure(config: MeasureConfig, items: list[Estimate], model: Estimate) -> Estimate:
    """One request per item."""
    rows = sum(some.rows for some in items)
    most = rows * config.sampling.max_new_tokens
    calls = Calls(
        requests=rows,
        prompt_tokens=rows * ITEM_TOKENS,
        response_tokens=most // 4,
        most_response_tokens=most,
    )
    seconds = (calls.prompt_tokens + calls.response_tokens) / TOKENS_PER_S
    return Estimate(rows=rows, calls={"model": calls}, seconds=seconds)


@stage(version=2, writes=Score, plan=plan_measure)
def measure(
    ctx: Context, config: MeasureConfig, *, items: list[Artifact], model: Model
) -> Iterator[Score]:
    """Yield one row per item, in order. No answer found is wrong, and stays visible as None."""
    total = sum(artifact.num_rows for artifact in items)
    requests = (_request(item, config) for item in _items(items))
    if config.method == "choose":
        for item, found in zip(_items(items), model.choose(requests, total=total), strict=True):
            best = item.options[_largest(found.probabilities)] if found.probabilities else None
            ending = "whole" if found.error is None else "failed"
            yield _score(ctx, item, "", best, "choose", ending, 0, found.error)
        return
    replies = model.generate(requests, config.sampling, total=total)
    for item, reply in zip(_items(items), replies, strict=True):
        found_answer = (
            None if reply.ending == "failed" else extract(reply.text, item, config.extract)
        )
        yield _score(
            ctx,
            item,
            reply.text,
            found_answer,
            reply.finish_reason,
            reply.ending,
            reply.response_tokens,
            reply.error,
        )


def extract(response: str, item: Item, how: str) -> str | None:
    """Return the answer in a response: a label for multiple choice, else normalised text."""
    if not item.options:
        return final_answer(response)
    return (first_capital if how == "first_capital" else choice)(response, item.options)


def _items(artifacts: Sequence[Artifact]) -> Iterator[Item]:
    for artifact in artifacts:
        yield from artifact.rows(Item)


def _request(item: Item, config: MeasureConfig) -> Request:
    if config.method == "choose" and not item.options:
        raise RecipeError(
            f'measure.method = "choose" needs options; item {item.id} of {item.task} has none'
        )
    turns = [Message(role="user", content=item.question)]
    if config.system_message:
        turns.insert(0, Message(role="system", content=config.system_message))
    options = item.options if config.method == "choose" else []
    return Request(id=item.id, messages=turns, options=options)


def _score(
    ctx: Context,
    item: Item,
    response: str,
    extracted: str | None,
    finish_reason: str,
    ending: Ending,
    num_tokens: int,
    error: str | None,
) -> Score:
    is_label = bool(item.options)
    correct = extracted == item.target if is_label else matches(extracted, item.target)
    ctx.count("answered", int(extracted is not None))
    ctx.count("correct", int(correct))
    return Score(
        id=item.id,
        suite=item.suite,
        task=item.task,
        response=response,
        extracted=extracted,
        correct=correct,
        target=item.target,
        chance=item.chance,
        finish_reason=finish_reason,
        ending=ending,
        response_tokens=num_tokens,
        error=error,
    )


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
