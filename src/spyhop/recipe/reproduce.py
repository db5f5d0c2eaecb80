"""Compare a run with the published one that it repeats: inputs, steps, scores."""

from collections.abc import Iterator

from spyhop.recipe.published import PublishedRun, PublishedStep
from spyhop.recipe.resolve import Resolved
from spyhop.recipe.why import changes
from spyhop.stage import by_name
from spyhop.statistics import wilson
from spyhop.train.release import totals

Finding = tuple[str, str, str]
"""Name, state and details. States of inputs: `same`, `missing`, `different`; of steps: `same`,
`not run`, `other content`, `other settings`; of scores: `same`, `within interval`, `different`."""
GOOD = ("same", "not run", "within interval")


def check_inputs(run: PublishedRun, resolved: Resolved) -> Iterator[Finding]:
    """Yield the files and models from outside that steps read."""
    names = {step.name for step in run.steps}
    for step in (step for step in resolved.recipe.steps if step.name in names):
        now, labels = resolved.inputs(step), resolved.labels(step)
        (old,) = (each for each in run.steps if each.name == step.name)
        for name, records in old.inputs.items():
            items = by_name(now[name]) if name in now else {}
            for (slot, item), record in zip(items.items(), records, strict=False):
                label = labels[name][slot]
                if record.name in names:
                    continue
                missing = [path for path in resolved.missing or [] if str(path) in label]
                state = "same" if item.digest == record.digest else "different"
                where = f"read by {step.name}; {label}"
                yield record.name, "missing" if missing else state, where


def check_steps(run: PublishedRun, resolved: Resolved) -> Iterator[Finding]:
    """Yield the steps of the published run."""
    steps = {step.name: step for step in resolved.recipe.steps}
    for old in run.steps:
        new, made = steps.get(old.name), resolved.made.get(old.name)
        if new is None:
            yield old.name, "other settings", "the recipe has no such step now"
        elif resolved.keys[old.name] != old.key:
            reasons = list(changes(old.config, new.config.model_dump(mode="json")))
            if old.version != new.stage.version:
                reasons.insert(0, f"{old.stage} was version {old.version}")
            yield old.name, "other settings", "; ".join(reasons) or "an input differs"
        elif made is None:
            yield old.name, "not run", ""
        else:
            yield old.name, "same" if made.digest == old.digest else "other content", ""


def check_scores(run: PublishedRun, resolved: Resolved) -> Iterator[Finding]:
    """Yield the scores of both runs; the interval is the published one, of 95 % (Wilson)."""
    for old in run.steps:
        made = resolved.made.get(old.name) if old.scores else None
        new = {} if made is None else {suite: (r, n) for suite, r, n in totals(made)}
        for suite in old.scores.keys() & new.keys():
            yield _score(old, suite, *new[suite])


def _score(old: PublishedStep, suite: str, right: int, num: int) -> Finding:
    then, is_same = wilson(*old.scores[suite]), old.scores[suite] == (right, num)
    is_within = then.low <= right / num <= then.high
    state = "same" if is_same else "within interval" if is_within else "different"
    interval = f"{100 * then.value:.1f} % ({100 * then.low:.1f} to {100 * then.high:.1f})"
    return f"{old.name} {suite}", state, f"{interval} became {100 * right / num:.1f} %, n = {num}"
