"""What is known of a curation before anything is rated, so that nothing is paid for in vain."""

from collections.abc import Iterator

from spyhop.curate.gate import GateConfig
from spyhop.curate.keep import KeepConfig
from spyhop.schema import Finding, InputError
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact

LOWER = "gate.min_repeated (0 asks for no second ratings)"


def with_threshold(gate: GateConfig, keep: KeepConfig) -> GateConfig:
    """Return the gate with the threshold that pairs are kept by, unless it has one of its own."""
    if gate.good_score is not None or keep.min_score is None:
        return gate
    return gate.model_copy(update={"good_score": keep.min_score})


def needs_repeats(gate: GateConfig, keep: KeepConfig) -> bool:
    """Whether nothing is kept without pairs that a judge rated twice."""
    return keep.uses_scores and keep.gate == "refuse" and gate.min_repeated > 0


def check_repeats(gate: GateConfig, keep: KeepConfig, num_repeated: int, setting: str) -> None:
    """Refuse settings with which no ratings of a judge can pass.

    Raises:
        ValueError: Naming `setting`, which is where `num_repeated` was set.
    """
    if needs_repeats(gate, keep) and num_repeated < gate.min_repeated:
        raise ValueError(
            f"{setting} = {num_repeated} is below gate.min_repeated = {gate.min_repeated}, so no "
            f"ratings can pass; raise it, or lower {LOWER}"
        )


@stage(version=1, writes=Finding, plan=lambda config, pairs: Estimate(rows=1))
def check_pair_count(ctx: Context, config: GateConfig, *, pairs: Artifact) -> Iterator[Finding]:
    """Yield `num_pairs`: there are as many as the gate wants rated twice.

    Raises:
        InputError: If there are fewer.
    """
    if pairs.num_rows < config.min_repeated:
        raise InputError(
            f"{pairs}: {pairs.num_rows:,} pairs, and the gate wants {config.min_repeated:,} that "
            f"are rated twice, so nothing is rated; add pairs, lower {LOWER}, or set "
            'keep.gate = "report"'
        )
    yield Finding(
        id="num_pairs",
        value=pairs.num_rows,
        limit=config.min_repeated,
        num_rows=pairs.num_rows,
        is_passed=True,
        text=f"{pairs.num_rows:,} pairs, {config.min_repeated:,} are needed",
    )
