"""Prompts to answers: a teaching assistant or a teacher replies to every prompt."""

from spyhop.augment.answer import AnswerConfig, answer
from spyhop.augment.chosen import ChosenConfig, chosen

__all__ = ["AnswerConfig", "ChosenConfig", "answer", "chosen"]
