"""From rows of messages to a checkpoint: tokenise, plan batches, train, resume."""

from spyhop.train.new_model import NewModelConfig, new_model
from spyhop.train.optimizer import OptimizerConfig
from spyhop.train.tune import TuneConfig, read_metrics, read_speed, tune

__all__ = [
    "NewModelConfig",
    "OptimizerConfig",
    "TuneConfig",
    "new_model",
    "read_metrics",
    "read_speed",
    "tune",
]
