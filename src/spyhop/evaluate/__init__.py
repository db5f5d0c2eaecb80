"""Measurement: evaluation items and a model's answers to them, scored by rule."""

from spyhop.evaluate.contamination import ContaminationRateConfig, ItemOverlap, contamination
from spyhop.evaluate.items import ItemsConfig, items
from spyhop.evaluate.measure import MeasureConfig, measure
from spyhop.evaluate.outcome import Fit, FitConfig, compare, fit, outcomes
from spyhop.evaluate.task import Protocol, Task, read_task, task_names

__all__ = [
    "ContaminationRateConfig",
    "Fit",
    "FitConfig",
    "ItemOverlap",
    "ItemsConfig",
    "MeasureConfig",
    "Protocol",
    "Task",
    "compare",
    "contamination",
    "fit",
    "items",
    "measure",
    "outcomes",
    "read_task",
    "task_names",
]
