"""Rate pairs, check the ratings, keep the best; select the prompts that need a stronger teacher."""

from spyhop.curate.gate import (
    GateConfig,
    LabelsConfig,
    check_pair_count,
    check_repeats,
    gate,
    needs_repeats,
    read_labels,
    with_threshold,
)
from spyhop.curate.keep import A4, A5, KeepConfig, KeepGood, keep
from spyhop.curate.prefer import PreferConfig, prefer
from spyhop.curate.prompts import (
    DrawFailingConfig,
    SelectHardestConfig,
    draw_failing,
    join_rows,
    select_hardest,
)
from spyhop.curate.rate import LikelihoodConfig, RateConfig, rate, rate_by_likelihood
from spyhop.curate.split import (
    QueriesConfig,
    SplitConfig,
    pairs_to_queries,
    queries_to_pairs,
    split,
)
