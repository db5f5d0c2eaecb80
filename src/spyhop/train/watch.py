"""Watchdogs: a step with an anomaly stops the training, or is skipped and counted."""

import math
from statistics import median

from spyhop.schema import TrainingError
from spyhop.train.checkpoint import Position
from spyhop.train.config import WatchConfig

FEWEST_NORMS = 10
"""Steps before a gradient norm can count as a spike."""
KEPT_NORMS = 100


def should_step(
    config: WatchConfig,
    position: Position,
    *,
    loss: float,
    norm: float,
    num_terms: float,
    rate: float,
    num_steps: int,
) -> bool:
    """Return whether to update the weights; anomalies are counted in `position.anomalies`.

    `norm` is that of the gradient, `rate` the learning rate as a share of its peak.
    """
    usual = median(position.norms) if len(position.norms) >= FEWEST_NORMS else math.inf
    if math.isfinite(norm):
        position.norms = [*position.norms, norm][-KEPT_NORMS:]
    if num_terms == 0:
        name, reason, action = "no_targets", "no token of the batch is supervised", "skip"
    elif rate <= 0:
        name, reason, action = "rate_0", "the learning rate is 0", "skip"
    elif not (math.isfinite(loss) and math.isfinite(norm)):
        name, reason = "not_finite", f"loss {loss}, gradient norm {norm}"
        action = config.not_finite
    elif norm > config.spike_factor * usual:
        name, reason = "spike", f"gradient norm {norm:.3g}, usually {usual:.3g}"
        action = config.spike
    else:
        position.skips_in_a_row = 0
        return True
    where = f"step {position.step + 1} of {num_steps}: {reason}"
    if action == "stop":
        raise TrainingError(f"{where}; lower optimizer.learning_rate, or see [watch]")
    name = f"{'skipped' if action == 'skip' else 'noticed'}/{name}"
    position.anomalies[name] = position.anomalies.get(name, 0) + 1
    position.skips_in_a_row = 0 if action == "count" else position.skips_in_a_row + 1
    if position.skips_in_a_row >= config.most_skips:
        raise TrainingError(f"{where}; skipped {config.most_skips} steps in a row")
    return action == "count"
