"""Score the options of items by their log-probability, under every usual normalisation.

`acc`, `acc_norm`, `acc_bytes` and `acc_mutual_info` are lm-eval's: the option of the highest sum of
log-probabilities, per character, per UTF-8 byte, and minus the sum without the question; the white
space before an option is not counted. `acc_token` is per token. `mc1` and `mc2` are TruthfulQA's:
whether the likeliest option is true, and the probability of all true options together.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from spyhop.evaluate.asking import item_fields, option_requests
from spyhop.evaluate.task import Protocol
from spyhop.models import Choice, Model
from spyhop.schema import Item, RecipeError, Score
from spyhop.store import Artifact

SCORED, PARSED = "likelihood", "parsed"
"""Finish reasons: options were scored, or an endpoint without log-probabilities named one."""


def scored_options(
    protocol: Protocol, artifacts: Sequence[Artifact], model: Model
) -> Iterator[Score]:
    """Yield the score of each item, in order.

    An item whose options differ in the prompt instead (`contexts`) has one request per prompt.
    """
    total = sum(len(item.contexts) or 1 for each in artifacts for item in each.rows(Item))
    requests = (
        one
        for each in artifacts
        for item in each.rows(Item)
        for one in option_requests(item, protocol)
    )
    choices = model.choose(requests, total=total)
    for item in (item for each in artifacts for item in each.rows(Item)):
        found = list(islice(choices, len(item.contexts) or 1))
        yield _score(item, protocol, found)


def _score(item: Item, protocol: Protocol, found: Sequence[Choice]) -> Score:
    golds = item.golds or [item.target]
    errors = [each.error for each in found if each.error is not None]
    values = _values(found)
    is_gold = np.array([label in golds for label in item.options])
    best = {name: item.options[int(np.argmax(value))] for name, value in values.items()}
    metrics = {name: float(label in golds) for name, label in best.items()}
    if values and item.golds:
        weights = np.exp(values["acc"] - values["acc"].max())
        metrics |= {"mc1": metrics["acc"], "mc2": float(weights[is_gold].sum() / weights.sum())}
    if "acc" in values and (values["acc"] == values["acc"].max()).sum() > 1:
        metrics["tied"] = 1.0  # the first option is taken, as lm-eval does; no answer stands out
    name = "acc" if protocol.metric == "accuracy" else protocol.metric
    is_parsed = any(each.is_parsed for each in found)
    if is_parsed:
        name = "acc"
    if values and name not in metrics:
        raise RecipeError(
            f"metric = {protocol.metric!r} cannot be had of {item.suite} {item.task}; "
            f"known: {', '.join(metrics)}"
        )
    answer = best.get("acc" if name in ("mc1", "mc2") else name)
    return Score(
        response="",
        extracted=answer,
        correct=answer in golds,
        value=metrics.get(name, 0.0),
        metric="acc" if is_parsed and protocol.metric != "accuracy" else protocol.metric,
        finish_reason=PARSED if is_parsed else SCORED,
        error=errors[0] if errors else None,
        ending="failed" if errors else "whole",
        response_tokens=0,
        metrics=metrics,
        **item_fields(item, protocol),
    )


def _values(found: Sequence[Choice]) -> dict[str, np.ndarray]:
    """Return what each metric compares, by option; empty where the model names no option."""
    columns = ("log_probabilities", "num_characters", "num_bytes", "num_tokens", "unconditional")
    total, characters, num_bytes, tokens, alone = (
        np.array([value for each in found for value in getattr(each, name)]) for name in columns
    )
    if not total.size:
        probabilities = np.array([value for each in found for value in each.probabilities])
        return {"acc": np.log(np.maximum(probabilities, 1e-300))} if probabilities.size else {}
    values = {"acc": total}
    for name, lengths in (("norm", characters), ("bytes", num_bytes), ("token", tokens)):
        if lengths.size:
            values[f"acc_{name}"] = total / lengths
    if alone.size:
        values["acc_mutual_info"] = total - alone
    return values
