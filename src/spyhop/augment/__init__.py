"""Prompts to answers: a teaching assistant or a teacher replies to every prompt."""

from spyhop.augment.answer import AnswerConfig, answer

__all__ = ["AnswerConfig", "answer"]
