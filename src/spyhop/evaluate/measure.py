"""Ask a model the items of a benchmark and score its answers by rule.

Two methods: `generate` reads the answer from a response, `likelihood` compares the options'
log-probabilities under every usual normalisation. `acc`, `acc_norm`, `acc_bytes` and
`acc_mutual_info` are lm-eval's: the option of the highest sum of log-probabilities, per character,
per UTF-8 byte, and minus the sum without the question; the white space before an option is not
counted. `acc_token` is per token. `mc1` and `mc2` are TruthfulQA's: whether the likeliest option is
true, and the probability of all true options together.

Source: Orca (arXiv:2306.02707), section 4.2.2: zero-shot, one user turn, exact match.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice

import numpy as np
from pydantic import Field

from spyhop.evaluate.asking import item_fields, option_requests, read_fields, request_of
from spyhop.evaluate.safety import with_toxicity
from spyhop.evaluate.sealed import note_scoring
from spyhop.evaluate.task import Benchmark, Protocol
from spyhop.models import Choice, Model
from spyhop.schema import Item, ModelError, RecipeError, Score, Unfinished
from spyhop.stage import Calls, Context, Estimate, Estimates, stage
from spyhop.store import Artifact, Artifacts

ITEM_TOKENS = 300
"""Planning figure: a usual item."""
SCORED, PARSED = "likelihood", "parsed"
"""Finish reasons: options were scored, or an endpoint without log-probabilities named one."""


class MeasureConfig(Protocol):
    """Prompt, sampling and answer extraction of an evaluation."""

    num_samples: int = Field(1, ge=1)
    """Responses per item; more than one need a temperature above 0. `eval` samples them at 0.7
    beside the greedy ones: the first is the Orca paper's setting, 4 give a standard error."""
    suites: dict[str, Protocol] = Field(default_factory=dict)
    """Suites that are asked in another way than the settings above say."""

    def for_tasks(self, tasks: Iterable[Benchmark]) -> "MeasureConfig":
        """Return the settings for benchmarks: their own protocols, where these settings are unset.

        Set fields, those of `sampling` one by one, apply to all benchmarks. Under another method
        than its own, a benchmark has the metric `accuracy`.
        """
        given = self.model_dump(include=set(Protocol.model_fields), exclude_unset=True)
        plain, suites = _protocol(self), dict(self.suites)
        for task in tasks:
            own = _protocol(task).model_dump()
            if given.get("method", own["method"]) != own["method"]:
                own["metric"] = "accuracy"
            sampling = own["sampling"] | given.get("sampling", {})
            protocol = Protocol.model_validate(own | given | {"sampling": sampling})
            if protocol != plain:
                suites.setdefault(task.name, protocol)
        return self.model_copy(update={"suites": suites})

    def protocol(self, suite: str) -> Protocol:
        """Return how the items of a suite are asked and scored."""
        return self.suites.get(suite) or _protocol(self)


def plan_measure(
    config: MeasureConfig,
    items: Estimates,
    model: Estimate,
    classifier: Estimate | None = None,
    sealed: Estimate | None = None,
) -> Estimate:
    """One request per item and sample."""
    rows = most = 0
    for suite, some in items.items():
        protocol, num = config.protocol(suite), some.rows
        if protocol.method == "generate":
            num *= config.num_samples
            most += num * protocol.sampling.max_new_tokens
        rows += num
    calls = Calls(
        requests=rows, prompt_tokens=rows * ITEM_TOKENS, response_tokens=most // 4,
        most_response_tokens=most,
    )  # fmt: skip
    return Estimate(rows=rows, calls={"model": calls})


@stage(version=7, writes=Score, plan=plan_measure)
def measure(
    ctx: Context,
    config: MeasureConfig,
    *,
    items: Artifacts,
    model: Model,
    classifier: Model | None = None,
    sealed: Artifact | None = None,
) -> Iterator[Score]:
    """Yield one row per item and sample, in order.

    No answer found is wrong, and stays visible as None. The form of a suite is the same for all
    its items, and part of each row. `sealed` is a declaration that this scoring follows
    (`evaluate.sealed`). Responses under the metric `toxicity` are scored by the classifier, or by
    the built-in one.
    """
    ids: list[str] = []
    for suite, group in groupby(
        items.values(), lambda each: next((i.suite for i in each.rows(Item)), "")
    ):
        artifacts, protocol = list(group), config.protocol(suite)
        if protocol.method == "likelihood":
            rows = _scored(protocol, artifacts, model)
        else:
            model.check_samples(config.num_samples, protocol.sampling)
            rows = _written(protocol, artifacts, model, config.num_samples)
        if protocol.metric == "toxicity":
            rows = with_toxicity(rows, [item for item, _ in _asked(artifacts)], classifier)
        for row in rows:
            ctx.count("answered", int(row.extracted is not None))
            ctx.count("correct", int(row.correct))
            ids.append(row.id)
            yield row
    note_scoring(ctx, model.identity, ids)


def _protocol(settings: Protocol) -> Protocol:
    return Protocol(**{name: getattr(settings, name) for name in Protocol.model_fields})


def _written(
    protocol: Protocol, artifacts: Sequence[Artifact], model: Model, num_samples: int
) -> Iterator[Score]:
    """Yield the scores of responses. An endpoint that refuses every prefill is one error."""
    total = num_samples * sum(artifact.num_rows for artifact in artifacts)
    requests = (request_of(*each, protocol) for each in _asked(artifacts, num_samples))
    num_failed, cause = 0, ""
    of_reply = ("finish_reason", "ending", "response_tokens", "error")
    try:
        replies = model.generate(requests, protocol.sampling, total=total)
        for (item, n), reply in zip(_asked(artifacts, num_samples), replies, strict=True):
            if reply.error is not None:
                num_failed, cause = num_failed + 1, reply.error
            fields = {name: getattr(reply, name) for name in of_reply}
            fields |= item_fields(item, protocol)
            fields |= read_fields(reply.text, reply.ending, item, protocol)
            yield Score(response=reply.text, sample_index=n, **fields)
    except Unfinished:
        raise
    except ModelError as error:
        if protocol.form != "prefilled":
            raise
        num_failed, cause = total, str(error)
    if protocol.form == "prefilled" and num_failed == total > 0:
        raise ModelError(
            f"{model.label}: no prefilled response was continued ({cause:.200}); "
            'set measure.form = "asked"'
        )


def _asked(artifacts: Sequence[Artifact], num_samples: int = 1) -> Iterator[tuple[Item, int]]:
    for artifact in artifacts:
        for item in artifact.rows(Item):
            yield from ((item, n) for n in range(num_samples))


def _scored(protocol: Protocol, artifacts: Sequence[Artifact], model: Model) -> Iterator[Score]:
    """Yield the scores of options.

    An item whose options differ in the prompt instead (`contexts`) has one request per prompt.
    """
    total = sum(len(item.contexts) or 1 for item, _ in _asked(artifacts))
    requests = (one for item, _ in _asked(artifacts) for one in option_requests(item, protocol))
    choices = model.choose(requests, total=total)
    for item, _ in _asked(artifacts):
        yield _score(item, protocol, list(islice(choices, len(item.contexts) or 1)))


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
        response="", response_tokens=0, finish_reason=PARSED if is_parsed else SCORED,
        extracted=answer, correct=answer in golds, value=metrics.get(name, 0.0), metrics=metrics,
        metric="acc" if is_parsed and protocol.metric != "accuracy" else protocol.metric,
        error=errors[0] if errors else None, ending="failed" if errors else "whole",
        **item_fields(item, protocol),
    )  # fmt: skip


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
