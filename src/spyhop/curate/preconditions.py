"""Checks before anything is rated, so that no money is wasted."""

from collections.abc import Iterator

from spyhop.curate.gate import GateConfig
from spyhop.curate.keep import KeepConfig
from spyhop.schema import Finding, InputError
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact

LOWER = "gate.min_repeated (0 needs no second ratings)"


def with_threshold(gate: GateConfig, keep: KeepConfig) -> GateConfig:
    """Return the gate with the threshold of `keep`, unless it has its own."""
    if gate.good_score is not None or keep.min_score is None:
        return gate
    return gate.model_copy(update={"good_score": keep.min_score})


def needs_repeats(gate: GateConfig, keep: KeepConfig) -> bool:
    """Whether nothing can be kept unless a judge rates some pairs twice."""
    return keep.uses_scores and keep.gate == "refuse" and gate.min_repeated > 0


def check_repeats(gate: GateConfig, keep: KeepConfig, num_repeated: int, setting: str) -> None:
    """Reject settings with which a judge's ratings cannot pass the gate."""
    if needs_repeats(gate, keep) and num_repeated < gate.min_repeated:
        raise ValueError(
            f"{setting} = {num_repeated} is below gate.min_repeated = {gate.min_repeated}, so "
            f"ratings cannot pass; raise it, or lower {LOWER}"
        )


@stage(version=1, writes=Finding, plan=lambda config, pairs: Estimate(rows=1))
def check_pair_count(ctx: Context, config: GateConfig, *, pairs: Artifact) -> Iterator[Finding]:
    """Yield the finding `num_pairs`: at least as many pairs as the gate needs rated twice."""
    if pairs.num_rows < config.min_repeated:
        raise InputError(
            f"{pairs}: {pairs.num_rows:,} pairs, but the gate needs {config.min_repeated:,} that "
            f"are rated twice; add pairs, lower {LOWER}, or set "
            'keep.gate = "report"'
        )
    yield Finding(
        id="num_pairs",
        value=pairs.num_rows,
        limit=config.min_repeated,
        num_rows=pairs.num_rows,
        is_passed=True,
        text=f"{pairs.num_rows:,} pairs, {config.min_repeated:,} required",
    )
