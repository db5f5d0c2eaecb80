"""Prompts to answers: asked, checked, or discussed between a teacher and its assistant."""

from spyhop.augment.answer import AnswerConfig, Outcomes, answer
from spyhop.augment.chosen import ChosenConfig, chosen
from spyhop.augment.dialogue import DialogueConfig, discussed
from spyhop.augment.difficulty import ErrorsConfig, LossesConfig, errors, losses
from spyhop.augment.script import Ask, Script, play
from spyhop.augment.verify import VerifyConfig, verified

__all__ = [
    "AnswerConfig",
    "Ask",
    "ChosenConfig",
    "DialogueConfig",
    "ErrorsConfig",
    "LossesConfig",
    "Outcomes",
    "Script",
    "VerifyConfig",
    "answer",
    "chosen",
    "discussed",
    "errors",
    "losses",
    "play",
    "verified",
]
