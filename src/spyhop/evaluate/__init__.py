"""Measurement: evaluation items and a model's answers to them, scored by rule."""

from spyhop.evaluate.contamination import ContaminationRateConfig, Seen, contamination
from spyhop.evaluate.measure import ItemsConfig, MeasureConfig, agieval, bbh, measure
from spyhop.evaluate.outcome import Fit, FitConfig, compare, fit, outcomes
from spyhop.evaluate.questions import questions

__all__ = [
    "ContaminationRateConfig",
    "Fit",
    "FitConfig",
    "ItemsConfig",
    "MeasureConfig",
    "Seen",
    "agieval",
    "bbh",
    "compare",
    "contamination",
    "fit",
    "measure",
    "outcomes",
    "questions",
]
