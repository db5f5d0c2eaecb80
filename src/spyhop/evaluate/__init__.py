"""Measurement: evaluation items and a model's answers to them, scored by rule."""

from spyhop.evaluate.measure import ItemsConfig, MeasureConfig, agieval, bbh, measure
from spyhop.evaluate.questions import questions

__all__ = ["ItemsConfig", "MeasureConfig", "agieval", "bbh", "measure", "questions"]
