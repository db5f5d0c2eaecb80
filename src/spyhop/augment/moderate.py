"""Moderation: drop training rows that a classifier or a moderation service flags."""

from collections.abc import Iterator
from itertools import tee

from pydantic import Field

from spyhop.models import TOXIC, Labels, Model, Request, pick_label
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


def plan_moderate(config: ModerateConfig, answers: Estimate, model: Estimate) -> Estimate:
    """One call per row, which writes no token."""
    calls = Calls(requests=answers.rows, prompt_tokens=round(answers.rows * answers.row_tokens))
    return Estimate(rows=answers.rows, row_tokens=answers.row_tokens, calls={"model": calls})


@stage(version=1, writes=Answer, plan=plan_moderate)
def moderate(
    ctx: Context, config: ModerateConfig, *, answers: Artifact, model: Model
) -> Iterator[Answer]:
    """Yield the rows that are not flagged, in order; flagged rows are dropped with their label.

    A row whose call failed is dropped too (`not_moderated`). Rows without a response pass: they
    are never trained on. Counts: `moderated/rows`, `moderated/flagged`, `label/<label>`.
    """
    failures = Failures(model.label, ctx.runtime.max_error_frac)
    rows, asked = tee(answers.rows(Answer))
    turns = (
        [t.content for t in row.messages if t.role != "system"] for row in asked if not row.error
    )
    texts = enumerate("\n\n".join(each) for each in turns)
    requests = (Request(id=str(n), messages=prompt_turns(text)) for n, text in texts)
    found = model.classify(requests, total=answers.num_rows)
    for row in rows:
        if row.error is not None:
            yield row
            continue
        labels = next(found)
        failures.see(labels.error)
        ctx.count("moderated/rows")
        if labels.error is not None:
            ctx.drop(row, "not_moderated")
        elif flagged := _flagged(config, labels):
            ctx.count("moderated/flagged")
            for label in flagged:
                ctx.count(f"label/{label}")
            ctx.drop(row, f"flagged: {flagged[0]}")
        else:
            yield row
    failures.check()


def _flagged(config: ModerateConfig, labels: Labels) -> list[str]:
    """Return the labels for which a row is dropped, the most probable first."""
    if labels.flagged is not None and not config.labels:
        return sorted(labels.flagged, key=lambda name: -labels.scores.get(name, 0.0))
    names = {pick_label(labels.scores, [name]) for name in config.labels}
    names = names or {pick_label(labels.scores, TOXIC)}
    over = [name for name in names if labels.scores[name] >= config.threshold]
    return sorted(over, key=lambda name: (-labels.scores[name], name))
