"""Compare a run with the published one that it repeats: steps and scores."""

from collections.abc import Iterator

from spyhop.recipe.published import PublishedRun
from spyhop.recipe.resolve import Resolved
from spyhop.recipe.why import differences
from spyhop.statistics import wilson
from spyhop.train.release import totals

Finding = tuple[str, str, str]
"""Name, state and details. A step is `same`, `not run`, of `other content` although settings and
inputs are the same, or `different`; scores are `same`, `within interval` or `different`."""
GOOD = ("same", "not run", "within interval")


def check_steps(run: PublishedRun, resolved: Resolved) -> Iterator[Finding]:
    """Yield the steps of the published run, with the settings and inputs that differ."""
    steps = {step.name: step for step in resolved.recipe.steps}
    for name, old in run.steps.items():
        reasons = ["the recipe has no such step now"]
        if name in steps:
            reasons = list(differences(resolved, steps[name], old))
        if reasons:
            yield name, "different", "; ".join(reasons)
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
                state = "within interval" if then.low <= now <= then.high else "different"
                is_same = scores[suite] == (right, num)
                text = f"{100 * then.value:.1f} % ({100 * then.low:.1f} to {100 * then.high:.1f})"
                about = f"{text} became {100 * now:.1f} %, n = {num}"
                yield f"{name} {suite}", "same" if is_same else state, about
