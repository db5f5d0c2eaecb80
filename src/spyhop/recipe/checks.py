"""Checks before anything is paid: models, samples, budgets, and trainings too short to learn."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from spyhop.lazy import missing
from spyhop.models import Sampling
from spyhop.models.capabilities import refusal
from spyhop.models.doctor import reachable
from spyhop.models.endpoint import Remote
from spyhop.models.service import Service
from spyhop.recipe.graph import Recipe, RecipeStep, models
from spyhop.recipe.plan import PlannedStep
from spyhop.recipe.resolve import Resolved
from spyhop.schema import ModelError, NotInstalled, RecipeError
from spyhop.store import canonical
from spyhop.train import TuneConfig
from spyhop.train.cost import FEWEST_STEPS


def check_extras(resolved: Resolved) -> None:
    """Refuse a run whose due steps need libraries that are not installed."""
    due = (step for step in resolved.recipe.steps if step.name not in resolved.made)
    for text in _missing_extras(due):
        raise NotInstalled(f"nothing was run yet; {text}")


def _missing_extras(steps: Iterable[RecipeStep]) -> Iterator[str]:
    """Yield a line for each extra that is not installed, with the first step that needs it."""
    first: dict[str, str] = {}
    for step in steps:
        for extra in (step.stage.needs, *(use.config.needs for use in models(step).values())):
            first.setdefault(extra, step.name)
    yield from filter(None, (missing(f"step {name}", extra) for extra, name in first.items()))


def check_models(resolved: Resolved) -> None:
    """Check what due steps need of served models, and their keys and connections if several.

    A single model's key needs no separate check: its first request fails before anything is paid.
    """
    due = [step for step in resolved.recipe.steps if step.name not in resolved.made]
    served: dict[str, tuple[Remote, Service]] = {}
    for step in due:
        sampling, uses = getattr(step.config, "sampling", None), models(step).values()
        for use in uses:
            if use.service is None or not isinstance(use.config, Remote):
                continue
            config = use.config
            served[canonical(config)] = config, use.service
            if isinstance(sampling, Sampling) and len(uses) == 1 and (
                reason := refusal(resolved.root, config.model, use.service, sampling, config.omit)
            ):  # fmt: skip
                raise ModelError(f"nothing was sent yet; {step.name}: {config.label}: {reason}")
    if len(served) < 2:
        return
    failed = [
        f"{config.label}: {check.name}: {check.text}"
        for config, service in served.values()
        for check in reachable(config, service)
        if not check.ok
    ]
    if failed:
        raise ModelError(f"nothing was sent yet; {'; '.join(failed)}")


def check_samples(recipe: Recipe) -> None:
    """Refuse several samples of one prompt where temperature 0 is sent: they would be equal."""
    for step in recipe.steps:
        sampling = getattr(step.config, "sampling", None)
        sent = [
            use
            for use in models(step).values()
            if not (isinstance(use.config, Remote) and "temperature" in use.config.omit)
        ]
        for name in ("num_samples", "num_instructions"):
            num = getattr(step.config, name, 1)
            if sent and isinstance(sampling, Sampling) and sampling.is_greedy and num > 1:
                raise RecipeError(
                    f"{step.name}: {name} = {num} at temperature 0 gives equal samples; set "
                    "sampling.temperature above 0"
                )


def warnings(lines: Sequence[PlannedStep]) -> Iterator[str]:
    """Yield a line for each missing extra, too small budget and too short training."""
    due = [line for line in lines if not line.is_made]
    yield from _missing_extras(line.step for line in due)
    yield from _budgets(due)
    for line in due:
        config, tokens = line.step.config, line.estimate.trained_tokens
        if isinstance(config, TuneConfig) and tokens:
            steps = -(-tokens // config.batch_tokens)
            if steps < FEWEST_STEPS:
                yield (
                    f"{line.step.name}: {steps} training steps are too few to learn from; lower "
                    f"train.batch_tokens ({config.batch_tokens:,}), or train for more epochs"
                )


def _budgets(due: Sequence[PlannedStep]) -> Iterator[str]:
    budgets: dict[str, float] = {}
    expected, highest = defaultdict[str, float](float), defaultdict[str, float](float)
    for line in due:
        for use in models(line.step).values():
            label, demand = use.config.label, line.demands.get(use.config.label)
            if use.service is not None and use.service.budget_usd is not None and demand:
                budgets[label] = use.service.budget_usd
                expected[label] += demand.usd
                highest[label] += demand.most_usd
    for label, budget in budgets.items():
        start = f"{label}: budget_usd = {budget:,.2f}"
        if budget < expected[label]:
            yield (
                f"{start} is below the expected cost of ${expected[label]:,.2f}; the run will stop "
                "before its end"
            )
        elif budget < highest[label]:
            yield (
                f"{start} covers the expected ${expected[label]:,.2f}, not the highest cost of "
                f"${highest[label]:,.2f}"
            )
