"""Watchdogs: a step with an anomaly stops the training, or is skipped and counted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from spyhop.schema import TrainingError
from spyhop.train.checkpoint import Position
from spyhop.train.config import WatchConfig

FEWEST_NORMS = 10
"""Steps before a gradient norm can count as a spike."""
KEPT_NORMS = 100


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """Loss, gradient norm and learning rate of a step, before the weights are updated."""

    number: int
    num_steps: int
    loss: float
    norm: float
    num_terms: float
    rate: float
    """Learning rate as a share of its peak."""


def should_step(step: StepVerdict, config: WatchConfig, position: Position) -> bool:
    """Return whether to update the weights; anomalies are counted in `position.anomalies`."""
    name, reason, action = _verdict(step, config, position)
    if math.isfinite(step.norm):
        position.norms = [*position.norms, step.norm][-KEPT_NORMS:]
    if not reason:
        position.skips_in_a_row = 0
        return True
    where = f"step {step.number} of {step.num_steps}: {reason}"
    if action == "stop":
        raise TrainingError(f"{where}; lower optimizer.learning_rate, or see [watch]")
    name = f"{'skipped' if action == 'skip' else 'noticed'}/{name}"
    position.anomalies[name] = position.anomalies.get(name, 0) + 1
    if action == "count":
        position.skips_in_a_row = 0
        return True
    position.skips_in_a_row += 1
    if position.skips_in_a_row >= config.most_skips:
        raise TrainingError(f"{where}; skipped {config.most_skips} steps in a row")
    return False


def _verdict(
    step: StepVerdict, config: WatchConfig, position: Position
) -> tuple[str, str, str]:
    """Return the anomaly's name, what was seen, and the action; empty where there is none."""
    if step.num_terms == 0:
        return "no_targets", "no token of the batch is supervised", "skip"
    if step.rate <= 0:
        return "rate_0", "the learning rate is 0", "skip"
    if not (math.isfinite(step.loss) and math.isfinite(step.norm)):
        return "not_finite", f"loss {step.loss}, gradient norm {step.norm}", config.not_finite
    usual = median(position.norms) if len(position.norms) >= FEWEST_NORMS else math.inf
    if step.norm > config.spike_factor * usual:
        return "spike", f"gradient norm {step.norm:.3g}, usually {usual:.3g}", config.spike
    return "", "", ""
