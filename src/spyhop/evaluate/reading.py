"""Read the answer of a response to an item, and its further scores. `rescore` reads stored ones."""

from spyhop.evaluate.asking import cue_of
from spyhop.evaluate.overlap import METRICS, overlap_metrics
from spyhop.evaluate.safety import read_labels, read_refusal
from spyhop.evaluate.task import Protocol
from spyhop.schema import Ending, Item, RecipeError
from spyhop.text.choices import first_capital
from spyhop.text.gold import Reading, gold_answer, read
from spyhop.text.squad import declines, exact_match, token_f1
from spyhop.text.thought import without_thought

SAFETY = {
    "refusal": read_refusal,
    "labels": read_labels,
    "toxicity": lambda text, ending, item: (Reading(None, is_right=False), {}),
}
"""Metrics that read a response by rules of their own; toxicity is added by a classifier."""


def read_reply(
    text: str, ending: Ending, item: Item, protocol: Protocol
) -> tuple[Reading, dict[str, float]]:
    """Return the answer in a response, and its scores by metric.

    Of a choice, `strict` is whether the paper's rule, the first capital letter that is a label,
    finds the gold one. Of a free answer, `exact` and `f1` compare words with the closest gold
    answer, and `declined` is whether the response says that it does not know.
    """
    golds = item.golds or [item.target]
    if protocol.metric in SAFETY:
        return SAFETY[protocol.metric](text, ending, item)
    if item.options:
        if protocol.metric in ("exact", "f1", *METRICS):
            raise RecipeError(
                f"metric = {protocol.metric!r} is of free answers; {item.suite} {item.task} has "
                "options"
            )
        return _choice(text, ending, item, golds, protocol)
    reading = _best(text, ending, item, golds, protocol)
    answer = reading.answer or without_thought(text).strip()
    plain = [gold_answer(gold) for gold in golds]
    metrics = {
        "exact": exact_match(answer, plain),
        "f1": token_f1(answer, plain),
        "declined": float(not reading.is_right and declines(without_thought(text))),
    }
    if protocol.metric in METRICS:
        metrics |= overlap_metrics(without_thought(text), golds)
    return reading, metrics


def _choice(
    text: str, ending: Ending, item: Item, golds: list[str], protocol: Protocol
) -> tuple[Reading, dict[str, float]]:
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
        read(begun, item.asked, gold, labels=item.options, is_whole=ending == "whole")
        for gold in golds
    ]
    return next((reading for reading in readings if reading.is_right), readings[0])
