"""Ask a model the items of a benchmark and score its answers by rule.

There are three forms, which are never mixed within a suite: `asked` ends the user's turn with the
cue of the answer, `prefilled` begins the response with it, `plain` is text without a chat format,
as for base models.

Two methods: `generate` reads the answer from a response, `likelihood` compares the options'
log-probabilities under every usual normalisation. `acc`, `acc_norm`, `acc_bytes` and
`acc_mutual_info` are lm-eval's: the option of the highest sum of log-probabilities, per character,
per UTF-8 byte, and minus the sum without the question; the white space before an option is not
counted. `acc_token` is per token. `mc1` and `mc2` are TruthfulQA's: whether the likeliest option is
true, and the probability of all true options together.

Scores are also the rows of a file, one per item and sample, and stored responses are read again.

Source: Orca (arXiv:2306.02707), section 4.2.2: zero-shot, one user turn, exact match.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from spyhop.evaluate.overlap import METRICS, overlap_metrics
from spyhop.evaluate.safety import read_labels, read_refusal, with_toxicity
from spyhop.evaluate.sealed import note_scoring
from spyhop.evaluate.task import Benchmark, Protocol
from spyhop.models import Choice, Model, Request
from spyhop.schema import (
    Ending,
    InputError,
    Item,
    ModelError,
    RecipeError,
    Score,
    Unfinished,
    prompt_turns,
)
from spyhop.settings import validated
from spyhop.stage import Calls, Context, Estimate, Estimates, stage
from spyhop.store import Artifact, Artifacts, atomic_write, rows_of
from spyhop.text.asking import declines
from spyhop.text.choices import first_capital
from spyhop.text.extract import exact_match, token_f1
from spyhop.text.gold import Reading, gold_answer, read
from spyhop.text.thought import without_thought

ITEM_TOKENS = 300
"""Planning figure: a usual item."""
SCORED, PARSED = "likelihood", "parsed"
"""Finish reasons: options were scored, or an endpoint without log-probabilities named one."""


READ_BY = ("extract", "metric", "filters")
"""Settings that change how a response is read."""
SAFETY: dict[str, Callable[[str, Ending, Item], tuple[Reading, dict[str, float]]]] = {
    "refusal": read_refusal,
    "labels": read_labels,
    "toxicity": lambda text, ending, item: (Reading(None, is_right=False), {"toxicity": 0.0}),
}
"""Metrics that read a response by rules of their own; toxicity is added by a classifier."""


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
    try:
        replies = model.generate(requests, protocol.sampling, total=total)
        for (item, n), reply in zip(_asked(artifacts, num_samples), replies, strict=True):
            if reply.error is not None:
                num_failed, cause = num_failed + 1, reply.error
            yield Score(
                response=reply.text, sample_index=n, finish_reason=reply.finish_reason,
                ending=reply.ending, response_tokens=reply.response_tokens, error=reply.error,
                **item_fields(item, protocol),
                **read_fields(reply.text, reply.ending, item, protocol),
            )  # fmt: skip
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
    best = {name: item.options[int(np.argmax(value))] for name, value in values.items()}
    metrics = {name: float(label in golds) for name, label in best.items()}
    if values and item.golds:
        weights = np.exp(values["acc"] - values["acc"].max())
        is_gold = np.array([label in golds for label in item.options])
        metrics |= {"mc1": metrics["acc"], "mc2": float(weights[is_gold].sum() / weights.sum())}
    if values and (values["acc"] == values["acc"].max()).sum() > 1:
        metrics["tied"] = 1.0  # the first option is taken, as lm-eval does; no answer stands out
    is_parsed = any(each.is_parsed for each in found)
    name = "acc" if is_parsed or protocol.metric == "accuracy" else protocol.metric
    if values and name not in metrics:
        raise RecipeError(
            f"metric = {protocol.metric!r} cannot be had of {item.suite} {item.task}; "
            f"known: {', '.join(metrics)}"
        )
    answer = best.get("acc" if name in ("mc1", "mc2") else name)
    return Score(
        response="", response_tokens=0, finish_reason=PARSED if is_parsed else SCORED,
        extracted=answer, correct=answer in golds, value=metrics.get(name, 0.0), metrics=metrics,
        metric="accuracy" if protocol.metric == "accuracy" else name,
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


def joined(items: Artifacts, scores: Artifact) -> Iterator[tuple[Item, Score]]:
    """Yield each score with its item; scores are in the order of the items."""
    every = rows_of(items, Item)
    item = next(every, None)
    for score in scores.rows(Score):
        while item is not None and item.id != score.id:
            item = next(every, None)
        if item is None:
            raise InputError(
                f"{scores}: the item {score.id} of {score.task} is not among the items"
            )
        yield item, score


def score_rows(model: str, items: Artifacts, scores: Artifact) -> Iterator[dict[str, Any]]:
    """Yield the rows of `scores-NAME.jsonl`, in the order of the items."""
    config = MeasureConfig.model_validate(scores.record.config)
    for item, score in joined(items, scores):
        yield score_row(model, item, score, config.protocol(item.suite))


def score_row(model: str, item: Item, score: Score, protocol: Protocol) -> dict[str, Any]:
    """Return a score as a row, with what was asked.

    `item_digest` is the content that two runs are joined by: the SHA-256 of question, options and
    gold answer, without cue and worked examples. `prompt_digest` covers everything that was sent.
    """
    shown = item.continuations or [item.question]  # which has the options' texts in it
    cue = cue_of(item, protocol) if protocol.form == "prefilled" else ""
    sent = [protocol.system_message, user_turn(item, protocol), cue, item.contexts]
    return {
        **score.model_dump(),
        "model": model,
        "question": user_turn(item, protocol),
        "options": item.continuations or item.options,
        "system_message": protocol.system_message,
        "max_new_tokens": protocol.sampling.max_new_tokens,
        "item_digest": _digest([item.text or item.question, shown, item.target]),
        "prompt_digest": _digest([protocol.form == "plain", *sent]),
    }


def write_scores(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows as JSON lines; an existing file is replaced whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _digest(content: list[Any]) -> str:
    return sha256(json.dumps(content).encode()).hexdigest()


class Rescored(NamedTuple):
    """A stored score, and the reading that the extractor of now gives of the same response."""

    item: Item
    protocol: Protocol
    before: Score
    after: Score

    @property
    def is_changed(self) -> bool:
        """Whether the answer, the verdict or the score differs."""
        readings = [
            (each.extracted, each.correct, each.value) for each in (self.before, self.after)
        ]
        return readings[0] != readings[1]


def rescore(items: Artifacts, scores: Artifact, changes: Mapping[str, Any]) -> Iterator[Rescored]:
    """Yield every score with its new reading; scored options have no response to read.

    A change that is unknown, or would change what was asked, is an error.
    """
    if asked := sorted(changes.keys() & Protocol.model_fields.keys() - set(READ_BY)):
        raise RecipeError(
            f"measure.{asked[0]}: the responses are stored, and it changes what is asked; "
            f"a new reading can change {', '.join(READ_BY)}"
        )
    stored = MeasureConfig.model_validate(scores.record.config)
    for item, score in joined(items, scores):
        own = stored.protocol(item.suite)
        given = own.model_dump() | dict(changes)
        protocol = validated(Path("--set"), Protocol, given, "measure.", {})
        after = score
        if own.method == "generate" and own.metric != "toxicity":
            fields = read_fields(score.response, score.ending, item, protocol)
            after = score.model_copy(update=fields)
        yield Rescored(item, protocol, score, after)
