"""Moderation: drop training rows that a classifier or a moderation service flags."""

from collections.abc import Iterator
from itertools import tee
from typing import Literal

from pydantic import Field

from spyhop.models import TOXIC, Labels, Model, Remote, Request, pick_label
from spyhop.models.script import Failures
from spyhop.schema import Answer, Config, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact


class ModerateConfig(Config):
    """Which labels drop a row."""

    labels: tuple[str, ...] = ()
    """Labels that drop a row from `threshold` on. Default: the labels that a service flags by
    itself, or the classifier's label for toxic text."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Probability from which a label counts; not used for what a service flags by itself."""
    text: Literal["conversation", "response"] = "conversation"
    """What is scored: all turns but system messages, or the last response alone."""


def plan_moderate(config: ModerateConfig, answers: Estimate, model: Estimate) -> Estimate:
    """One call per row, which writes no token."""
    calls = Calls(
        requests=answers.rows,
        prompt_tokens=round(answers.rows * answers.row_tokens),
        response_tokens=0,
        most_response_tokens=0,
    )
    return Estimate(rows=answers.rows, row_tokens=answers.row_tokens, calls={"model": calls})


@stage(version=1, writes=Answer, plan=plan_moderate)
def moderate(
    ctx: Context, config: ModerateConfig, *, answers: Artifact, model: Model
) -> Iterator[Answer]:
    """Yield the rows that are not flagged, in order; flagged rows are dropped with their label.

    A row whose call failed is dropped too (`not_moderated`). Rows without a response pass: they
    are never trained on. Counts: `moderated/rows`, `moderated/flagged`, `label/<label>`.

    Raises:
        ModelError: If the model has no such label, or too many calls failed.
    """
    failures = Failures(model.label, ctx.runtime.max_error_frac)
    rows, asked = tee(answers.rows(Answer))
    scored = enumerate(row for row in asked if row.error is None)
    requests = (_request(config, str(place), row) for place, row in scored)
    found = model.classify(requests, total=answers.num_rows)
    is_service = isinstance(model.config, Remote)
    for row in rows:
        if row.error is not None:
            yield row
            continue
        labels = next(found)
        failures.see(labels.error)
        ctx.count("moderated/rows")
        if labels.error is not None:
            ctx.drop(row, "not_moderated")
        elif flagged := _flagged(config, labels, is_service=is_service):
            ctx.count("moderated/flagged")
            for label in flagged:
                ctx.count(f"label/{label}")
            ctx.drop(row, f"flagged: {flagged[0]}")
        else:
            yield row
    failures.check()


def _request(config: ModerateConfig, name: str, row: Answer) -> Request:
    turns = row.messages[-1:] if config.text == "response" else row.messages
    text = "\n\n".join(turn.content for turn in turns if turn.role != "system")
    return Request(id=name, messages=prompt_turns(text))


def _flagged(config: ModerateConfig, labels: Labels, *, is_service: bool) -> list[str]:
    """Return the labels for which a row is dropped, the most probable first."""
    if is_service and not config.labels:
        return sorted(labels.flagged, key=lambda name: -labels.scores.get(name, 0.0))
    wanted = config.labels or ("",)
    names = {pick_label(labels.scores, name, TOXIC) for name in wanted}
    over = [name for name in names if labels.scores[name] >= config.threshold]
    return sorted(over, key=lambda name: (-labels.scores[name], name))
