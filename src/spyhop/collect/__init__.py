"""Instruction collections to queries, and queries under system messages to prompts."""

from spyhop.collect.decontaminate import DecontaminateConfig, decontaminate
from spyhop.collect.distinct import DistinctConfig, Repeated, distinct
from spyhop.collect.draw import DrawConfig, draw
from spyhop.collect.fetch import FetchConfig, fetch
from spyhop.collect.flan_cot import FlanCotConfig, flan_cot, flan_cot_rationales
from spyhop.collect.messages import MessagesConfig, conversations
from spyhop.collect.natural_instructions import NaturalInstructionsConfig, natural_instructions
from spyhop.collect.pair import PairConfig, SystemMessage, orca_messages, orca_shares, pair
from spyhop.collect.ready import ReadyConfig, ready_answers
from spyhop.collect.records import Columns, RecordsConfig, records
from spyhop.collect.sample import SubsetConfig, subset
from spyhop.collect.seeds import SeedsConfig, pair_id, seeds
from spyhop.collect.strata import Difficulty, Stratum
from spyhop.collect.t0 import T0Config, t0
from spyhop.collect.table import Table
from spyhop.collect.targets import TargetsConfig, recorded_targets

__all__ = [
    "Columns",
    "DecontaminateConfig",
    "Difficulty",
    "DistinctConfig",
    "DrawConfig",
    "FetchConfig",
    "FlanCotConfig",
    "MessagesConfig",
    "NaturalInstructionsConfig",
    "PairConfig",
    "ReadyConfig",
    "RecordsConfig",
    "Repeated",
    "SeedsConfig",
    "Stratum",
    "SubsetConfig",
    "SystemMessage",
    "T0Config",
    "Table",
    "TargetsConfig",
    "conversations",
    "decontaminate",
    "distinct",
    "draw",
    "fetch",
    "flan_cot",
    "flan_cot_rationales",
    "natural_instructions",
    "orca_messages",
    "orca_shares",
    "pair",
    "pair_id",
    "ready_answers",
    "recorded_targets",
    "records",
    "seeds",
    "subset",
    "t0",
]
