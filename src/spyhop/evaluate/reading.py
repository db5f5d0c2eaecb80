"""Read the answer of a response to an item, and its further scores. `rescore` reads stored ones."""

from collections.abc import Callable
from typing import Any

from spyhop.evaluate.asking import cue_of
from spyhop.evaluate.overlap import METRICS, overlap_metrics
from spyhop.evaluate.safety import read_labels, read_refusal
from spyhop.evaluate.task import Protocol
from spyhop.schema import Ending, Item, RecipeError
from spyhop.text.choices import first_capital
from spyhop.text.gold import Reading, gold_answer, read
from spyhop.text.refusal import declines
from spyhop.text.squad import exact_match, token_f1
from spyhop.text.thought import without_thought

SAFETY: dict[str, Callable[[str, Ending, Item], tuple[Reading, dict[str, float]]]] = {
    "refusal": read_refusal,
    "labels": read_labels,
    "toxicity": lambda text, ending, item: (Reading(None, is_right=False), {"toxicity": 0.0}),
}
"""Metrics that read a response by rules of their own; toxicity is added by a classifier."""


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
