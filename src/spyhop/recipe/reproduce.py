"""Compare a run with the published one that it repeats: inputs, steps, scores."""

from collections.abc import Iterator

from spyhop.recipe.published import PublishedRun
from spyhop.recipe.resolve import Resolved
from spyhop.recipe.why import changes
from spyhop.stage import by_name
from spyhop.statistics import wilson
from spyhop.train.release import totals

Finding = tuple[str, str, str]
"""Name, state and details. States of inputs: `same`, `missing`, `different`; of steps: `same`,
`not run`, `other content`, `other settings`, `other inputs`; of scores: `same`, `within interval`,
`different`."""
GOOD = ("same", "not run", "within interval")


def check_inputs(run: PublishedRun, resolved: Resolved) -> Iterator[Finding]:
    """Yield the files and models from outside that steps read."""
    for step in (step for step in resolved.recipe.steps if step.name in run.steps):
        now, labels = resolved.inputs(step), resolved.labels(step)
        for key, records in run.steps[step.name].inputs.items():
            items = by_name(now.get(key, {})).items()
            for (slot, item), record in zip(items, records, strict=False):
                if record.name not in run.steps:
                    label = labels[key][slot]
                    is_missing = any(str(path) in label for path in resolved.missing or ())
                    state = "same" if item.digest == record.digest else "different"
                    where = f"read by {step.name}; {label}"
                    yield record.name, "missing" if is_missing else state, where


def check_steps(run: PublishedRun, resolved: Resolved) -> Iterator[Finding]:
    """Yield the steps of the published run."""
    steps = {step.name: step for step in resolved.recipe.steps}
    for name, old in run.steps.items():
        if (new := steps.get(name)) is None:
            yield name, "other settings", "the recipe has no such step now"
        elif resolved.keys[name] != old.key:
            reasons = list(changes(old.config, new.config.model_dump(mode="json")))
            if old.version != new.stage.version:
                reasons.insert(0, f"{old.stage} was version {old.version}")
            yield name, "other settings" if reasons else "other inputs", "; ".join(reasons)
        elif name not in resolved.made:
            yield name, "not run", ""
        else:
            is_same = resolved.made[name].digest == old.digest
            yield name, "same" if is_same else "other content", ""


def check_scores(run: PublishedRun, resolved: Resolved) -> Iterator[Finding]:
    """Yield the scores of both runs; the interval is the published one, of 95 % (Wilson)."""
    for name, scores in run.scores.items():
        for suite, right, num in totals(resolved.made[name]) if name in resolved.made else ():
            if suite in scores:
                then, now = wilson(*scores[suite]), right / num
                is_within = then.low <= now <= then.high
                state = "within interval" if is_within else "different"
                text = f"{100 * then.value:.1f} % ({100 * then.low:.1f} to {100 * then.high:.1f})"
                is_same = scores[suite] == (right, num)
                about = f"{text} became {100 * now:.1f} %, n = {num}"
                yield f"{name} {suite}", "same" if is_same else state, about
