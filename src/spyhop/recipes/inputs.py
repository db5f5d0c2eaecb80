"""What recipes are given: models that answer, a student to train, benchmarks to measure on."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from spyhop import world
from spyhop.collect import FetchConfig, fetch
from spyhop.evaluate import AnyTask, ItemsConfig, is_file, read_items, read_suite, with_shots
from spyhop.evaluate.suite import FOLDER as TASKS
from spyhop.models import read_teacher
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.schema import Config, RecipeError
from spyhop.settings import HUB, InputPath, beside_file, read_toml, validated
from spyhop.train import NewModelConfig, new_model


def one_of(*names: str) -> Callable[[Any], Any]:
    """Return a validator that wants exactly one of these fields to be set."""

    def check(config: Config) -> Config:
        if sum(bool(getattr(config, name)) for name in names) != 1:
            raise ValueError(f"set exactly one of {', '.join(names[:-1])} and {names[-1]}")
        return config

    return check


class Student(Config):
    """The model to train: a Hugging Face folder, or a new one around a tokenizer."""

    base: InputPath | None = None
    """Folder of a causal language model of any class."""
    tokenizer: InputPath | None = None
    """Folder of a tokenizer, for a new model of the shape `new`."""
    new: NewModelConfig = NewModelConfig()

    _one_origin = model_validator(mode="after")(one_of("base", "tokenizer"))

    @model_validator(mode="after")
    def _shape_is_used(self) -> "Student":
        if self.base is not None and "new" in self.model_fields_set:
            raise ValueError("new is the shape of a new model; take it out, or base")
        return self


def _data_place(place: str, info: ValidationInfo) -> str:
    if place.startswith(HUB):
        if not _COMMIT.search(place):
            raise ValueError("name the commit: hf://datasets/OWNER/NAME@ and its 40 digits")
        return place
    return str(beside_file(Path(place), info))


_COMMIT = re.compile(r"@[0-9a-f]{40}$")
DataPlace = Annotated[str, AfterValidator(_data_place)]
"""Folder or file of a data set, or `hf://datasets/OWNER/NAME@COMMIT`."""


class Suite(Config):
    """Benchmarks to measure on."""

    suite: str
    """Name of a benchmark, such as `bbh`, `bbh:cot` or `questions` (your own: JSONL, CSV or Parquet
    with `question`, `answer` and `options`), or of several: `orca`, `humpback`, `quick`; or a TOML
    file, or a YAML file of lm-eval, that describes one."""
    path: InputPath | None = None
    """Folder of the benchmark's files, or a single file, if `data` does not name it."""
    data: dict[str, DataPlace] = Field(default_factory=dict)
    """Where each data set is: a folder, a file, or `hf://datasets/OWNER/NAME@COMMIT`."""
    tasks: tuple[str, ...] | None = None
    """Names of tasks; default: all tasks of the benchmark."""
    limit: int | None = Field(None, gt=0)
    """At most this many items per task: a fixed random sample; a larger limit contains it."""
    shots: int | None = Field(None, ge=0)
    """Worked examples before every question; default: as the benchmark says."""

    @field_validator("suite")
    @classmethod
    def _found(cls, suite: str, info: ValidationInfo) -> str:
        return str(beside_file(Path(suite), info)) if is_file(suite) else suite


@dataclass(frozen=True, slots=True)
class Placed:
    """One benchmark and where its files are."""

    task: AnyTask
    place: str
    tasks: tuple[str, ...] | None = None
    limit: int | None = None


def placed(suites: Sequence[Suite], data: Mapping[str, str] | None = None) -> list[Placed]:
    """Return the benchmarks of suites with their files: `data` holds those of further data sets."""
    pairs = [(suite, task) for suite in suites for task in read_suite(suite.suite)]
    check_data(data or {}, [task for _, task in pairs])
    for suite in suites:
        check_data(suite.data, [task for one, task in pairs if one is suite])
    return [
        Placed(
            with_shots(task, suite.shots),
            _place(task, suite, {**(data or {}), **suite.data}),
            suite.tasks,
            suite.limit,
        )
        for suite, task in pairs
    ]


def check_data(data: Iterable[str], tasks: Sequence[AnyTask]) -> None:
    """Refuse the name of a data set that no benchmark reads: it is mistyped."""
    known = dict.fromkeys(name for task in tasks for name in (task.data, task.name) if name)
    if unknown := [name for name in data if name not in known]:
        raise RecipeError(
            f"data {unknown[0]!r:.80}: no suite here reads it; known: {', '.join(known)}"
        )


def _place(task: AnyTask, suite: Suite, data: Mapping[str, str]) -> str:
    for name in (task.name, task.data):
        if name in data:
            return data[name]
    if (own := TASKS / f"{task.data}.jsonl").is_file() and suite.path is None:
        return str(own)
    if suite.path is None:
        raise RecipeError(
            f"suite {suite.suite!r}: where are the files of {task.data!r}? Set it in [data], or as "
            f"--data {task.data}=FOLDER"
        )
    return str(suite.path)


AuditJudge = Annotated[
    InputPath | None,
    Field(
        description="Model that compares the student's responses with the base's for the imitation "
        "audit, on at most 200 items in both orders: its file (TOML) or folder. Default: no audit."
    ),
]


def check_judged(judge: Path | None, suites: Sequence[Suite]) -> None:
    """Refuse a judge without items."""
    if judge is not None and not suites:
        raise ValueError("the judge of the imitation audit needs items: add [[suites]]")


def served(file: Path) -> Use:
    """Return the model that a teacher's file or a folder names.

    A file with the table `solver` names the embedded world's teacher, which needs no key.
    """
    if file.suffix == ".toml" and "solver" in (given := read_toml(file)):
        return Use(validated(file, world.Solver, given, "", {}))
    found = read_teacher(file)
    weights = None if found.folder is None else Source(found.folder)
    return Use(found.config, weights, found.service)


def add_base(r: Recipe, student: Student) -> RecipeStep | Source:
    """Return the model that training starts from, with its step added where it is a new one."""
    if student.base is not None:
        return Source(student.base)
    assert student.tokenizer is not None
    return r.add("base", new_model, student.new, tokenizer=Source(Path(student.tokenizer)))


def add_items(r: Recipe, suites: Sequence[Placed]) -> dict[str, Ref]:
    """Add the steps that read the items of benchmarks, and return them by the benchmark's name."""
    found: dict[str, Ref] = {}
    for suite in suites:
        task = suite.task.identity()
        config = ItemsConfig(task=task, tasks=suite.tasks, limit=suite.limit)
        source = add_source(r, suite.place, task.data)
        found[task.name] = r.add(f"items-{task.name}", read_items, config, folder=source)
    return found


def add_source(r: Recipe, place: str, data: str) -> RecipeStep | Source:
    """Return the files of a data set, with the step that fetches them from the hub."""
    if not place.startswith(HUB):
        return Source(Path(place))
    address, _, revision = place.rpartition("@")
    name = f"data-{re.sub('[^a-z0-9_.-]+', '-', data.lower())}"
    known = [step for step in r.steps if step.name == f"{r.prefix}{name}"]
    config = FetchConfig(address=address, revision=revision)
    return known[0] if known else r.add(name, fetch, config)
