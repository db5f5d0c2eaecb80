"""Prompts to answers: asked, checked, or discussed between a teacher and its assistant."""

from spyhop.augment.answer import AnswerConfig, Outcomes, answer
from spyhop.augment.backtranslate import (
    BacktranslateConfig,
    InstructionFilters,
    backtranslate,
)
from spyhop.augment.chosen import ChosenConfig, chosen
from spyhop.augment.conversation import (
    SEED_MESSAGE,
    WEB_MESSAGE,
    ForwardConfig,
    ReversedConfig,
    forward_pairs,
    reversed_pairs,
)
from spyhop.augment.dialogue import DialogueConfig, discussed
from spyhop.augment.difficulty import ErrorsConfig, LossesConfig, errors, losses
from spyhop.augment.evidence import ExplainConfig, explained
from spyhop.augment.verify import VerifyConfig, verified

__all__ = [
    "SEED_MESSAGE",
    "WEB_MESSAGE",
    "AnswerConfig",
    "BacktranslateConfig",
    "ChosenConfig",
    "DialogueConfig",
    "ErrorsConfig",
    "ExplainConfig",
    "ForwardConfig",
    "InstructionFilters",
    "LossesConfig",
    "Outcomes",
    "ReversedConfig",
    "VerifyConfig",
    "answer",
    "backtranslate",
    "chosen",
    "discussed",
    "errors",
    "explained",
    "forward_pairs",
    "losses",
    "reversed_pairs",
    "verified",
]
