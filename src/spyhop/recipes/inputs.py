"""What recipes are given: models that answer, a student to train, benchmarks to measure on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from spyhop.evaluate import ItemsConfig, Task, read_items, read_task
from spyhop.models import read_teacher
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.schema import Config
from spyhop.settings import InputPath, beside_file
from spyhop.train import NewModelConfig, new_model


class Student(Config):
    """The model to train: a Hugging Face folder, or a new one around a tokenizer."""

    base: InputPath | None = None
    """Folder of a causal language model of any class."""
    tokenizer: InputPath | None = None
    """Folder of a tokenizer, for a new model of the shape `new`."""
    new: NewModelConfig = NewModelConfig()

    @model_validator(mode="after")
    def _one_origin(self) -> "Student":
        if (self.base is None) == (self.tokenizer is None):
            raise ValueError("set exactly one of base and tokenizer")
        if self.base is not None and "new" in self.model_fields_set:
            raise ValueError("new is the shape of a new model; take it out, or base")
        return self


class Suite(Config):
    """A benchmark to measure on."""

    suite: str
    """Name of a benchmark, such as `bbh`, `agieval` or `questions` (your own: JSONL, CSV or Parquet
    with `question`, `answer` and `options`); or a TOML file that describes one."""
    path: InputPath
    """Folder of the benchmark's files, or a single file."""
    tasks: tuple[str, ...] | None = None
    """Names of tasks; default: all tasks of the benchmark."""
    limit: int | None = Field(None, gt=0)
    """At most this many items per task: a fixed random sample; a larger limit contains it."""

    @field_validator("suite")
    @classmethod
    def _found(cls, suite: str, info: ValidationInfo) -> str:
        return str(beside_file(Path(suite), info)) if suite.endswith(".toml") else suite

    @property
    def task(self) -> Task:
        """The benchmark, read from its file."""
        return read_task(self.suite)


AuditJudge = Annotated[
    InputPath | None,
    Field(
        description="Model that compares the student's responses with the base's for the imitation "
        "audit, on at most 200 items in both orders: its file (TOML) or folder. Default: no audit."
    ),
]


def check_judged(judge: Path | None, suites: Sequence[Suite]) -> None:
    """Refuse a judge without items.

    Raises:
        ValueError: Saying what to add.
    """
    if judge is not None and not suites:
        raise ValueError("the judge of the imitation audit needs items: add [[suites]]")


def served(file: Path) -> Use:
    """Return the model that a teacher's file or a folder names."""
    found = read_teacher(file)
    weights = None if found.folder is None else Source(found.folder)
    return Use(found.config, weights, found.service)


def add_base(r: Recipe, student: Student) -> RecipeStep | Source:
    """Return the model that training starts from, with its step added where it is a new one."""
    if student.base is not None:
        return Source(student.base)
    assert student.tokenizer is not None
    return r.add("base", new_model, student.new, tokenizer=Source(Path(student.tokenizer)))


def add_items(r: Recipe, suites: Sequence[Suite]) -> dict[str, Ref]:
    """Add the steps that read the items of the suites, and return them by the task's name."""
    found: dict[str, Ref] = {}
    for suite in suites:
        task, source = suite.task.identity(), Source(suite.path)
        config = ItemsConfig(task=task, tasks=suite.tasks, limit=suite.limit)
        found[task.name] = r.add(f"items-{task.name}", read_items, config, folder=source)
    return found
