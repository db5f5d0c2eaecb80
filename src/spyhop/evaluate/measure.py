"""Ask a model the items of a benchmark and score its answers by rule.

Source: Orca (arXiv:2306.02707), section 4.2.2: zero-shot, one user turn, exact match.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal

from pydantic import Field

from spyhop.evaluate.task import Protocol, Task
from spyhop.models import Model, Reply, Request
from spyhop.schema import Ending, Item, RecipeError, Score, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.choices import first_capital
from spyhop.text.gold import Reading, read
from spyhop.text.thought import without_thought

ITEM_TOKENS = 300
"""Planning figures: a usual item, and a model of a million parameters on one core."""


class MeasureConfig(Protocol):
    """Prompt, sampling and answer extraction of an evaluation."""

    method: Literal["generate", "choose"] = "generate"
    """How items are answered. `choose` takes the option of the highest probability, so every item
    has an answer."""
    suites: dict[str, Protocol] = Field(default_factory=dict)
    """Suites that are asked in another way than the settings above say."""

    def for_tasks(self, tasks: Iterable[Task]) -> "MeasureConfig":
        """Return the settings for benchmarks: their own protocols, where these settings are unset.

        Set fields, those of `sampling` one by one, apply to all benchmarks.
        """
        given = self.model_dump(include=set(Protocol.model_fields), exclude_unset=True)
        plain, suites = _protocol(self), dict(self.suites)
        for task in tasks:
            own = _protocol(task).model_dump()
            sampling = own["sampling"] | given.get("sampling", {})
            protocol = Protocol.model_validate(own | given | {"sampling": sampling})
            if protocol != plain:
                suites.setdefault(task.name, protocol)
        return self.model_copy(update={"suites": suites})


def plan_measure(config: MeasureConfig, items: Mapping[str, Estimate], model: Estimate) -> Estimate:
    """One request per item."""
    rows = sum(some.rows for some in items.values())
    most = rows * config.sampling.max_new_tokens
    calls = Calls(
        requests=rows,
        prompt_tokens=rows * ITEM_TOKENS,
        response_tokens=most // 4,
        most_response_tokens=most,
    )
    return Estimate(rows=rows, calls={"model": calls})


@stage(version=4, writes=Score, plan=plan_measure)
def measure(
    ctx: Context, config: MeasureConfig, *, items: Mapping[str, Artifact], model: Model
) -> Iterator[Score]:
    """Yield one row per item, in order. No answer found is wrong, and stays visible as None."""
    for protocol, group in groupby(items.values(), lambda artifact: _protocol_of(artifact, config)):
        artifacts = list(group)
        total = sum(artifact.num_rows for artifact in artifacts)
        requests = (_request(item, config.method, protocol) for item in _items(artifacts))
        if config.method == "choose":
            choices = model.choose(requests, total=total)
            for item, found in zip(_items(artifacts), choices, strict=True):
                best = item.options[_largest(found.probabilities)] if found.probabilities else None
                ending: Ending = "whole" if found.error is None else "failed"
                reading = Reading(best, best == item.target)
                yield _score(ctx, item, "", reading, "choose", ending, 0, found.error)
            continue
        replies = model.generate(requests, protocol.sampling, total=total)
        for item, reply in zip(_items(artifacts), replies, strict=True):
            yield _score(
                ctx,
                item,
                reply.text,
                _read(reply, item, protocol.extract),
                reply.finish_reason,
                reply.ending,
                reply.response_tokens,
                reply.error,
            )


def _protocol(settings: Protocol) -> Protocol:
    return Protocol(**{name: getattr(settings, name) for name in Protocol.model_fields})


def _protocol_of(items: Artifact, config: MeasureConfig) -> Protocol:
    """Return how the items of a suite are asked."""
    suite = next((item.suite for item in items.rows(Item)), "")
    return config.suites.get(suite) or _protocol(config)


def _read(reply: Reply, item: Item, how: str) -> Reading:
    """Return the answer in a reply: a label for multiple choice, else a number or text."""
    if reply.ending == "failed":
        return Reading(None, is_right=False)
    if item.options and how == "first_capital":
        label = first_capital(without_thought(reply.text), item.options)
        return Reading(label, label == item.target)
    is_whole = reply.ending == "whole"
    return read(reply.text, item.question, item.target, labels=item.options, is_whole=is_whole)


def _items(artifacts: Sequence[Artifact]) -> Iterator[Item]:
    for artifact in artifacts:
        yield from artifact.rows(Item)


def _request(item: Item, method: str, protocol: Protocol) -> Request:
    if method == "choose" and not item.options:
        raise RecipeError(
            f'measure.method = "choose" needs options; item {item.id} of {item.task} has none'
        )
    options = item.options if method == "choose" else []
    turns = prompt_turns(item.asked, protocol.system_message)
    return Request(id=item.id, messages=turns, options=options)


def _score(
    ctx: Context,
    item: Item,
    response: str,
    reading: Reading,
    finish_reason: str,
    ending: Ending,
    num_tokens: int,
    error: str | None,
) -> Score:
    ctx.count("answered", int(reading.answer is not None))
    ctx.count("correct", int(reading.is_right))
    return Score(
        id=item.id,
        suite=item.suite,
        task=item.task,
        response=response,
        extracted=reading.answer,
        correct=reading.is_right,
        target=item.target,
        chance=item.chance,
        finish_reason=finish_reason,
        ending=ending,
        response_tokens=num_tokens,
        error=error,
    )


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
