"""Prompts to answers: a teaching assistant or a teacher replies to every prompt."""

from spyhop.augment.answer import AnswerConfig, answer
from spyhop.augment.chosen import ChosenConfig, chosen
from spyhop.augment.difficulty import ErrorsConfig, LossesConfig, errors, losses

__all__ = [
    "AnswerConfig",
    "ChosenConfig",
    "ErrorsConfig",
    "LossesConfig",
    "answer",
    "chosen",
    "errors",
    "losses",
]
