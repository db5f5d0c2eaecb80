"""Measurement: evaluation items and a model's answers to them, scored by rule."""

from spyhop.evaluate.contamination import ContaminationRateConfig, ItemOverlap, check_contamination
from spyhop.evaluate.export import (
    Rescored,
    joined,
    rescore,
    score_row,
    score_rows,
    write_scores,
)
from spyhop.evaluate.items import ItemsConfig, items_of, read_items
from spyhop.evaluate.measure import MeasureConfig, measure
from spyhop.evaluate.outcome import (
    HeldOutConfig,
    HeldOutLogLikelihood,
    compare,
    outcomes,
    score_held_out,
)
from spyhop.evaluate.rates import (
    RATES,
    SampleFigures,
    TaskScores,
    could_reverse,
    differences,
    macro_average,
    red_rates,
    task_scores,
)
from spyhop.evaluate.sealed import SealConfig, SealState, of_interest, seal, seal_state
from spyhop.evaluate.suite import (
    AnyTask,
    file_of,
    forms,
    is_file,
    read_suite,
    read_task,
    task_names,
    with_shots,
)
from spyhop.evaluate.sweep import SweptTask, best_per_task, sweep
from spyhop.evaluate.task import Benchmark, Protocol, Task

__all__ = [
    "RATES",
    "AnyTask",
    "Benchmark",
    "ContaminationRateConfig",
    "HeldOutConfig",
    "HeldOutLogLikelihood",
    "ItemOverlap",
    "ItemsConfig",
    "MeasureConfig",
    "Protocol",
    "Rescored",
    "SampleFigures",
    "SealConfig",
    "SealState",
    "SweptTask",
    "Task",
    "TaskScores",
    "best_per_task",
    "check_contamination",
    "compare",
    "could_reverse",
    "differences",
    "file_of",
    "forms",
    "is_file",
    "items_of",
    "joined",
    "macro_average",
    "measure",
    "of_interest",
    "outcomes",
    "read_items",
    "read_suite",
    "read_task",
    "red_rates",
    "rescore",
    "score_held_out",
    "score_row",
    "score_rows",
    "seal",
    "seal_state",
    "sweep",
    "task_names",
    "task_scores",
    "with_shots",
    "write_scores",
]
