"""Turn an item into requests, and read the answer of a response to it (`rescore` reads again).

There are three forms, which are never mixed within a suite: `asked` ends the user's turn with the
cue of the answer, `prefilled` begins the response with it, `plain` is text without a chat format,
as for base models.
"""

from collections.abc import Callable
from typing import Any

from spyhop.evaluate.overlap import METRICS, overlap_metrics
from spyhop.evaluate.safety import read_labels, read_refusal
from spyhop.evaluate.task import Protocol
from spyhop.models import Request
from spyhop.schema import Ending, Item, RecipeError, prompt_turns
from spyhop.text.asking import declines
from spyhop.text.choices import first_capital
from spyhop.text.extract import exact_match, token_f1
from spyhop.text.gold import Reading, gold_answer, read
from spyhop.text.thought import without_thought

SAFETY: dict[str, Callable[[str, Ending, Item], tuple[Reading, dict[str, float]]]] = {
    "refusal": read_refusal,
    "labels": read_labels,
    "toxicity": lambda text, ending, item: (Reading(None, is_right=False), {"toxicity": 0.0}),
}
"""Metrics that read a response by rules of their own; toxicity is added by a classifier."""


def cue_of(item: Item, protocol: Protocol) -> str:
    """Return the beginning of the answer: the item's own cue, or the one that asks for thought."""
    return protocol.chain_of_thought or item.cue


def user_turn(item: Item, protocol: Protocol) -> str:
    """Return the verbatim user turn, or the plain text."""
    return item.question + ("" if protocol.form == "prefilled" else cue_of(item, protocol))


def request_of(item: Item, sample_index: int, protocol: Protocol) -> Request:
    """Return the request for one response."""
    row_id = f"{item.id}/{sample_index}" if sample_index else item.id
    return _request(item, protocol, item.question, id=row_id, sample_index=sample_index)


def option_requests(item: Item, protocol: Protocol) -> list[Request]:
    """Return the requests that score an item's options: one, or one per context."""
    texts = tuple(item.continuations or item.options)
    if not texts:
        where = f"item {item.id} of {item.task}"
        raise RecipeError(f'method = "likelihood" needs options; {where} has none')
    if not item.contexts:
        return [_request(item, protocol, item.question, id=item.id, options=texts)]
    return [
        _request(item, protocol, context, id=f"{item.id}/{n}", options=(text,))
        for n, (context, text) in enumerate(zip(item.contexts, texts, strict=True))
    ]


def item_fields(item: Item, protocol: Protocol) -> dict[str, Any]:
    """Return the fields of a score that are the item's."""
    names = ("id", "suite", "task", "target", "chance", "passage", "topic")
    return {name: getattr(item, name) for name in names} | {"form": protocol.form}


def _request(item: Item, protocol: Protocol, question: str, **fields: Any) -> Request:  # noqa: ANN401
    cue, system = cue_of(item, protocol), protocol.system_message
    prompt: dict[str, Any] = {"messages": prompt_turns(question + cue, system)}
    if protocol.form == "plain":
        prompt = {"text": "\n\n".join(filter(None, [system, question + cue]))}
    elif protocol.form == "prefilled":
        prompt = {"messages": prompt_turns(question, system), "continuation": cue.lstrip()}
    is_relative = protocol.metric == "acc_mutual_info"
    return Request(with_unconditional=is_relative, **prompt, **fields)


def read_fields(text: str, ending: Ending, item: Item, protocol: Protocol) -> dict[str, Any]:
    """Return the fields of a score that reading a response determines."""
    golds = item.golds or [item.target]
    if protocol.metric in SAFETY:
        reading, metrics = SAFETY[protocol.metric](text, ending, item)
    elif item.options:
        reading, metrics = _choice(text, ending, item, golds, protocol)
    else:
        reading, metrics = _free(text, ending, item, golds, protocol)
    known = {"accuracy": float(reading.is_right), **metrics}
    if protocol.metric not in known:
        raise RecipeError(
            f"metric = {protocol.metric!r}: {item.suite} {item.task} has none of its responses; "
            f"known: {', '.join(known)}"
        )
    return {
        "extracted": reading.answer,
        "correct": reading.is_right,
        "value": known[protocol.metric],
        "metric": protocol.metric,
        "metrics": metrics,
    }


def _free(
    text: str, ending: Ending, item: Item, golds: list[str], protocol: Protocol
) -> tuple[Reading, dict[str, float]]:
    """Return the free answer; `exact` and `f1` compare words, `declined` is "I don't know"."""
    if protocol.filters and ending != "failed":  # as lm-eval reads it; the first filter decides
        answers = [each.answer(text) for each in protocol.filters]
        rights = [f.is_right(a, golds) for f, a in zip(protocol.filters, answers, strict=True)]
        names = [f"exact_match,{each.name}" for each in protocol.filters]
        metrics = dict(zip(["exact", *names], map(float, [rights[0], *rights]), strict=True))
        return Reading(answers[0], rights[0]), metrics
    reading = _best(text, ending, item, golds, protocol)
    answer = reading.answer or without_thought(text).strip()
    plain = [gold_answer(gold) for gold in golds]
    is_declined = not reading.is_right and declines(without_thought(text))
    metrics = {"exact": exact_match(answer, plain), "f1": token_f1(answer, plain)}
    if protocol.metric in METRICS:
        metrics |= overlap_metrics(without_thought(text), golds)
    return reading, metrics | {"declined": float(is_declined)}


def _choice(
    text: str, ending: Ending, item: Item, golds: list[str], protocol: Protocol
) -> tuple[Reading, dict[str, float]]:
    """Return the choice; `strict` is whether the paper's first capital letter is right."""
    is_strict = all(len(label) == 1 and label.isupper() for label in item.options)
    strict = first_capital(without_thought(text), item.options) if is_strict else None
    metrics = {"strict": float(strict in golds)}
    if protocol.extract == "first_capital" and ending != "failed":
        return Reading(strict, strict in golds), metrics
    return _best(text, ending, item, golds, protocol), metrics


def _best(text: str, ending: Ending, item: Item, golds: list[str], protocol: Protocol) -> Reading:
    """Return the first reading that is right under any gold answer, else that under the first."""
    if ending == "failed":
        return Reading(None, is_right=False)
    begun = text
    if protocol.form != "asked" and (cue := cue_of(item, protocol)):
        begun = f"{cue.lstrip()} {text}"
    readings = [
        read(begun, item.question, gold, labels=item.options, is_whole=ending == "whole")
        for gold in golds
    ]
    return next((reading for reading in readings if reading.is_right), readings[0])
