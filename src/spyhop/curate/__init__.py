"""What is worth a stronger teacher, and what is worth training on."""

from spyhop.curate.exchange import (
    PairsConfig,
    PartConfig,
    QueriesConfig,
    as_pairs,
    as_queries,
    part,
)
from spyhop.curate.gate import GateConfig, gate
from spyhop.curate.keep import A4, A5, KeepConfig, keep
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
    "LabelsConfig",
    "LikelihoodConfig",
    "PairsConfig",
    "PartConfig",
    "QueriesConfig",
    "RateConfig",
    "as_pairs",
    "as_queries",
    "gate",
    "hardest",
    "keep",
    "labels",
    "likelihood",
    "part",
    "rate",
]
