"""Ask a model the items of a benchmark and score its answers by rule.

Two methods: `generate` reads the answer from a response, `likelihood` compares the options'
log-probabilities (`evaluate.likelihood`).

Source: Orca (arXiv:2306.02707), section 4.2.2: zero-shot, one user turn, exact match.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from pydantic import Field

from spyhop.evaluate.asking import item_fields, request_of
from spyhop.evaluate.likelihood import scored_options
from spyhop.evaluate.reading import read_fields
from spyhop.evaluate.safety import with_toxicity
from spyhop.evaluate.sealed import note_scoring
from spyhop.evaluate.task import Benchmark, Protocol
from spyhop.models import Model
from spyhop.schema import Item, ModelError, Score, Unfinished
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact

ITEM_TOKENS = 300
"""Planning figure: a usual item."""


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
    items: Mapping[str, Estimate],
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
    items: Mapping[str, Artifact],
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
    for suite, group in groupby(items.values(), _suite):
        artifacts, protocol = list(group), config.protocol(suite)
        if protocol.method == "likelihood":
            rows = scored_options(protocol, artifacts, model)
        else:
            model.check_samples(config.num_samples, protocol.sampling)
            rows = _written(protocol, artifacts, model, config.num_samples)
        if protocol.metric == "toxicity":
            asked = [item for artifact in artifacts for item in artifact.rows(Item)]
            rows = with_toxicity(rows, asked, classifier)
        for row in rows:
            ctx.count("answered", int(row.extracted is not None))
            ctx.count("correct", int(row.correct))
            ids.append(row.id)
            yield row
    note_scoring(ctx, model.identity, ids)


def _protocol(settings: Protocol) -> Protocol:
    return Protocol(**{name: getattr(settings, name) for name in Protocol.model_fields})


def _suite(items: Artifact) -> str:
    return next((item.suite for item in items.rows(Item)), "")


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


def _asked(artifacts: Sequence[Artifact], num_samples: int) -> Iterator[tuple[Item, int]]:
    for artifact in artifacts:
        for item in artifact.rows(Item):
            yield from ((item, n) for n in range(num_samples))
