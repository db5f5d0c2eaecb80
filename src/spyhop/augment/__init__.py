"""Prompts to answers: asked, checked, or discussed between a teacher and its assistant."""

from spyhop.augment.answer import AnswerConfig, Outcomes, answer
from spyhop.augment.dialogue import DialogueConfig, discussed
from spyhop.augment.script import Ask, Script, play
from spyhop.augment.verify import VerifyConfig, verified

__all__ = [
    "AnswerConfig",
    "Ask",
    "DialogueConfig",
    "Outcomes",
    "Script",
    "VerifyConfig",
    "answer",
    "discussed",
    "play",
    "verified",
]
