"""Instruction collections to queries, and queries under system messages to prompts."""

from spyhop.collect.flan_cot import FlanCotConfig, flan_cot, flan_cot_rationales
from spyhop.collect.pair import PairConfig, SystemMessage, orca_messages, orca_shares, pair
from spyhop.collect.sample import SubsetConfig, subset

__all__ = [
    "FlanCotConfig",
    "PairConfig",
    "SubsetConfig",
    "SystemMessage",
    "flan_cot",
    "flan_cot_rationales",
    "orca_messages",
    "orca_shares",
    "pair",
    "subset",
]
