"""Instruction collections to queries, and queries under system messages to prompts."""

from spyhop.collect.columns import Columns
from spyhop.collect.decontaminate import decontaminate
from spyhop.collect.distinct import DistinctConfig, Repeated, distinct
from spyhop.collect.draw import DrawConfig, draw
from spyhop.collect.fetch import FetchConfig, fetch
from spyhop.collect.flan_cot import (
    FlanCotConfig,
    RationalesConfig,
    read_flan_cot,
    read_rationales,
)
from spyhop.collect.messages import MessagesConfig, read_conversations, read_preferences
from spyhop.collect.natural_instructions import NaturalInstructionsConfig, read_natural_instructions
from spyhop.collect.pair import PairConfig, SystemMessage, orca_messages, orca_shares, pair
from spyhop.collect.ready import ReadyConfig, read_answers
from spyhop.collect.records import RecordsConfig, read_records
from spyhop.collect.sample import SubsetConfig, draw_subset
from spyhop.collect.seeds import SeedsConfig, pair_id, read_seeds
from spyhop.collect.strata import Difficulty, Stratum
from spyhop.collect.t0 import T0Config, read_t0
from spyhop.collect.table import SourceTable
from spyhop.collect.targets import record_targets
