"""Rate pairs, check the ratings, keep the best; select the prompts that need a stronger teacher."""

from spyhop.curate.draw_failing import DrawFailingConfig, draw_failing, join_rows
from spyhop.curate.gate import (
    GateConfig,
    check_pair_count,
    check_repeats,
    gate,
    needs_repeats,
    with_threshold,
)
from spyhop.curate.keep import A4, A5, KeepConfig, KeepGood, keep
from spyhop.curate.labels import LabelsConfig, read_labels
from spyhop.curate.likelihood import LikelihoodConfig, rate_by_likelihood
from spyhop.curate.prefer import PreferConfig, prefer
from spyhop.curate.rate import RateConfig, rate
from spyhop.curate.select_hardest import SelectHardestConfig, select_hardest
from spyhop.curate.split import (
    QueriesConfig,
    SplitConfig,
    pairs_to_queries,
    queries_to_pairs,
    split,
)
