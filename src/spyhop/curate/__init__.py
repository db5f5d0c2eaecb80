"""What is worth a stronger teacher, and what is worth training on."""

from spyhop.curate.before import check_repeats, enough, gate_of, wants_repeats
from spyhop.curate.exchange import (
    PairsConfig,
    PartConfig,
    QueriesConfig,
    as_pairs,
    as_queries,
    part,
)
from spyhop.curate.gate import GateConfig, gate
from spyhop.curate.keep import A4, A5, KeepConfig, KeepGood, keep
from spyhop.curate.labels import LabelsConfig, labels
from spyhop.curate.likelihood import LikelihoodConfig, likelihood
from spyhop.curate.rate import RateConfig, rate
from spyhop.curate.select import HardestConfig, hardest

__all__ = [
    "A4",
    "A5",
    "GateConfig",
    "HardestConfig",
    "KeepConfig",
    "KeepGood",
    "LabelsConfig",
    "LikelihoodConfig",
    "PairsConfig",
    "PartConfig",
    "QueriesConfig",
    "RateConfig",
    "as_pairs",
    "as_queries",
    "check_repeats",
    "enough",
    "gate",
    "gate_of",
    "hardest",
    "keep",
    "labels",
    "likelihood",
    "part",
    "rate",
    "wants_repeats",
]
