"""From rows of messages to a checkpoint: tokenise, plan batches, train, resume."""

from spyhop.train.base import NewModelConfig, new_model
from spyhop.train.config import (
    AdapterConfig,
    DivergenceConfig,
    DPOConfig,
    HeldOutConfig,
    TuneConfig,
    WatchConfig,
)
from spyhop.train.encoding import read_sample, reason_to_skip
from spyhop.train.optimizer import OptimizerConfig
from spyhop.train.preference import reference_config, score_pairs
from spyhop.train.tune import read_metrics, read_speed, tune
