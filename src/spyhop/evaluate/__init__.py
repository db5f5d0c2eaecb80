"""Measurement: evaluation items and a model's answers to them, scored by rule."""

from spyhop.evaluate.measure import ItemsConfig, MeasureConfig, agieval, bbh, measure
from spyhop.evaluate.outcome import Fit, LikelihoodConfig, compare, likelihood, outcomes
from spyhop.evaluate.questions import questions

__all__ = [
    "Fit",
    "ItemsConfig",
    "LikelihoodConfig",
    "MeasureConfig",
    "agieval",
    "bbh",
    "compare",
    "likelihood",
    "measure",
    "outcomes",
    "questions",
]
