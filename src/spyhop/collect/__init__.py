"""Instruction collections to queries, and queries under system messages to prompts."""

from spyhop.collect.clean import DistinctConfig, decontaminate, distinct
from spyhop.collect.columns import Columns, RecordsConfig, read_records
from spyhop.collect.draw import DrawConfig, draw
from spyhop.collect.fetch import FetchConfig, fetch
from spyhop.collect.messages import (
    MessagesConfig,
    ReadyConfig,
    read_answers,
    read_conversations,
    read_preferences,
)
from spyhop.collect.pairs import SeedsConfig, pair_id, read_seeds
from spyhop.collect.prompts import (
    MessageRate,
    PairConfig,
    PromptQueriesConfig,
    SubsetConfig,
    SystemMessage,
    draw_subset,
    keep_recorded,
    orca_messages,
    orca_shares,
    pair,
    prompt_queries,
)
from spyhop.collect.published import (
    FlanCotConfig,
    NaturalInstructionsConfig,
    RationalesConfig,
    T0Config,
    read_flan_cot,
    read_natural_instructions,
    read_rationales,
    read_t0,
    record_targets,
)
from spyhop.collect.table import Difficulty, SourceTable, Stratum
