"""Prompts of your own, answered by a teacher, in the form in which they came."""

from typing import Literal

from spyhop.augment import AnswerConfig, answer
from spyhop.augment.export import RESERVED, ExportConfig, export
from spyhop.collect.messages import MessagesConfig, messages
from spyhop.recipe.graph import Recipe, Source
from spyhop.recipes.inputs import served
from spyhop.schema import Config
from spyhop.settings import InputPath

PROMPTS, ANSWERS, EXPORT = "prompts", "answers", "export"
"""The nodes, in order."""


class AnsweringConfig(Config):
    """Settings of the `answer` recipe."""

    name: str = "answer"
    """Name of the run; its nodes stand in `runs/<name>`. A file's own name, unless it says."""
    prompts: InputPath
    """File or folder of JSONL or Parquet: rows with `messages`, or with a `prompt`."""
    teacher: InputPath
    """A teacher's file (TOML), or a folder of weights."""
    answers: AnswerConfig = AnswerConfig()
    form: Literal["", "jsonl", "parquet"] = ""
    """Of the answers; empty is the one in which the prompts came."""


def answering(config: AnsweringConfig) -> Recipe:
    """Your own prompts (JSONL or Parquet), answered by a teacher, in the same form."""
    r = Recipe(config.name)
    file = Source(config.prompts)
    prompts = r.add(PROMPTS, messages, MessagesConfig(reserved=RESERVED), file=file)
    answers = r.add(
        ANSWERS, answer, config.answers, prompts=prompts, teacher=served(config.teacher)
    )
    form = ExportConfig(form=config.form, num_samples=config.answers.num_samples)
    r.add(EXPORT, export, form, file=file, prompts=prompts, answers=answers)
    return r
