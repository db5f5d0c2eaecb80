"""Is the later model better than the earlier one? The winner replaces both in later steps.

A promote step writes an alias record; a `Chosen` input stands for the model that it names, and the
keys of later steps follow from that model's. Until the record exists the winner is unknown, so
a plan shows dependent steps as "up to"; where the earlier model wins, they are often finished.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from spyhop.evaluate import compare
from spyhop.report.costs import costed, ranking
from spyhop.schema import Config, InputError
from spyhop.stage import FOLDER, Context, Estimate, stage
from spyhop.statistics import Comparison
from spyhop.store import Artifact

FILE = "promotion.json"


class PromoteConfig(Config):
    """Rule by which a new model replaces the earlier one."""

    rule: Literal["better", "not_worse", "always"] = "better"
    """When the new model is promoted. `better`: the interval of the paired difference is above
    zero. `not_worse`: it is not below zero. `always`: without a comparison, as in the Humpback
    paper."""
    margin: float = Field(0.0, ge=0)
    """What a difference must exceed, in the units of the measure (0.01 is a percentage point)."""


class Promotion(Config):
    """What a promote step found."""

    chosen: Literal["before", "after"]
    difference: float | None = None
    """Second minus first on the same items; None where nothing was measured."""
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    num_items: int = 0
    reason: str


@stage(version=1, writes=FOLDER, plan=lambda config, **inputs: Estimate(seconds=1))
def promote(
    ctx: Context,
    config: PromoteConfig,
    *,
    before: Artifact | None = None,
    after: Artifact | None = None,
) -> None:
    """Choose one of two models by what they scored on the same items, and record why."""
    if before is not None and after is not None:
        chosen = _judged(config, *compare([before], [after]))
    elif config.rule == "always":
        chosen = Promotion(chosen="after", reason="promoted without a comparison, as the rule says")
    else:
        raise InputError(f"promote.rule = {config.rule!r} needs scores to compare")
    ctx.count(f"promoted/{'yes' if chosen.chosen == 'after' else 'no'}")
    ctx.notice(chosen.reason)
    (ctx.out / FILE).write_text(chosen.model_dump_json(indent=1))


class RankConfig(Config):
    """The students of each arm, and how often arms are ranked at most."""

    arms: dict[str, tuple[str, ...]]
    """Students of each arm at growing sizes."""
    looks: int = Field(ge=1)
    """Sizes at which arms are ranked, for the level of the tests."""


@stage(
    version=1, writes=FOLDER, shows_names=True, plan=lambda config, **inputs: Estimate(seconds=1)
)
def rank_arms(
    ctx: Context,
    config: RankConfig,
    *,
    students: Mapping[str, Artifact],
    scores: Mapping[str, Artifact],
) -> None:
    """Rank arms by points per dollar; the choice is `before` if their order is resolved.

    Raises:
        InputError: If an arm's teacher neither read nor wrote anything.
    """
    arms = {
        arm: [costed(ctx.root, students[name], scores[name], scores["base"], 0) for name in names]
        for arm, names in config.arms.items()
    }
    if free := [arm for arm, sizes in arms.items() if not sizes[-1].tokens]:
        raise InputError(f"arm {free[0]!r}: no teacher was asked, so its points have no cost")
    order, is_resolved = ranking(arms, config.looks)
    end = "resolved: larger sizes are not run" if is_resolved else "not resolved"
    reason = f"points per dollar, best first: {', '.join(order)}; {end}"
    ctx.notice(reason)
    found = Promotion(chosen="before" if is_resolved else "after", reason=reason)
    (ctx.out / FILE).write_text(found.model_dump_json(indent=1))


def read_promotion(artifact: Artifact) -> Promotion:
    """Return what a finished promote step found."""
    return Promotion.model_validate_json(artifact.file(FILE).read_text())


def _judged(config: PromoteConfig, found: Comparison, num_items: int) -> Promotion:
    interval = found.difference
    is_better, is_worse = interval.low > config.margin, interval.high < -config.margin
    is_chosen = {"better": is_better, "not_worse": not is_worse, "always": True}[config.rule]
    said = "better" if is_better else "worse" if is_worse else "no difference shown"
    shown = f"{interval.value:+.4g} [{interval.low:+.4g}, {interval.high:+.4g}]"
    end = "promoted" if is_chosen else "not promoted: the earlier model is kept"
    return Promotion(
        chosen="after" if is_chosen else "before", difference=interval.value, low=interval.low,
        high=interval.high, p_value=found.p_value, num_items=num_items,
        reason=f"{said}: {shown} on {num_items} items, p = {found.p_value:.3g}; {end}",
    )  # fmt: skip
