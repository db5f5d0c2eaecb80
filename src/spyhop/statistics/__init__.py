"""Intervals and tests for accuracies: of one model, and of two models on the same items.

Differences are always *second minus first*; intervals and p-values are two-sided. An interval over
one source of variance does not cover the others: items (`wilson`, `paired_difference`), seeds
(`seed_interval`, `paired_seed_difference`), both (`seed_item_difference`).
"""

from spyhop.statistics.agreement import krippendorff_alpha, nominal_kappa, quadratic_kappa
from spyhop.statistics.interval import (
    ChanceTest,
    Interval,
    cluster_interval,
    macro_interval,
    near_chance,
    seed_interval,
    wilson,
)
from spyhop.statistics.paired import (
    Comparison,
    cluster_difference,
    detectable_difference,
    group_difference,
    holm,
    mcnemar,
    paired_difference,
    paired_seed_difference,
    seed_item_difference,
)
from spyhop.statistics.preference import (
    bounded_mean,
    bradley_terry,
    grade_ratio,
    length_controlled,
    style_difference,
    win_rate,
)
from spyhop.statistics.samples import VarianceSplit, majority_correct, pass_at_k, variance_split
from spyhop.statistics.scaling import Scaling, SlopeTest, equal_slopes, scaling
