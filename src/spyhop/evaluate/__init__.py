"""Measurement: evaluation items and a model's answers to them, scored by rule."""

from spyhop.evaluate.comparison import compare, outcomes
from spyhop.evaluate.contamination import ContaminationRateConfig, ItemOverlap, check_contamination
from spyhop.evaluate.items import ItemsConfig, items_of, read_items
from spyhop.evaluate.likelihood import HeldOutConfig, score_held_out
from spyhop.evaluate.measure import (
    MeasureConfig,
    measure,
    rescore,
    score_row,
    score_rows,
    write_scores,
)
from spyhop.evaluate.rates import (
    RATES,
    SweptTask,
    TaskScores,
    best_per_task,
    chance_sentence,
    differences,
    macro_average,
    red_rates,
    sweep,
    task_scores,
)
from spyhop.evaluate.sealed import SealConfig, of_interest, seal, seal_state
from spyhop.evaluate.suite import AnyTask, forms, is_file, read_suite, task_names, with_shots
from spyhop.evaluate.task import Protocol, Task
