"""Measurement: evaluation items and a model's answers to them, scored by rule."""

from spyhop.evaluate.contamination import ContaminationRateConfig, ItemOverlap, check_contamination
from spyhop.evaluate.items import ItemsConfig, read_items
from spyhop.evaluate.judge_prompts import JudgePrompt, read_prompts
from spyhop.evaluate.judging import JudgeConfig, judge
from spyhop.evaluate.measure import MeasureConfig, measure
from spyhop.evaluate.outcome import (
    HeldOutConfig,
    HeldOutLogLikelihood,
    compare,
    outcomes,
    score_held_out,
)
from spyhop.evaluate.task import Protocol, Task, read_task, task_names

__all__ = [
    "ContaminationRateConfig",
    "HeldOutConfig",
    "HeldOutLogLikelihood",
    "ItemOverlap",
    "ItemsConfig",
    "JudgeConfig",
    "JudgePrompt",
    "MeasureConfig",
    "Protocol",
    "Task",
    "check_contamination",
    "compare",
    "judge",
    "measure",
    "outcomes",
    "read_items",
    "read_prompts",
    "read_task",
    "score_held_out",
    "task_names",
]
