"""Orca on real collections: explanation tuning from recorded or live teachers.

Source: Orca (arXiv:2306.02707): collections -> system messages -> answers -> training -> BBH and
AGIEval.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from spyhop.augment import (
    AnswerConfig,
    DialogueConfig,
    VerifyConfig,
    answer,
    discussed,
    verified,
)
from spyhop.collect import (
    FlanCotConfig,
    PairConfig,
    SubsetConfig,
    SystemMessage,
    flan_cot,
    flan_cot_rationales,
    orca_messages,
    orca_shares,
    pair,
    subset,
)
from spyhop.curate import HardestConfig, hardest
from spyhop.evaluate import ItemsConfig, MeasureConfig, agieval, bbh, measure
from spyhop.models import Local, Replay, read_teacher
from spyhop.recipe.graph import Node, Recipe, Ref, Source, Use
from spyhop.report import ReportConfig, page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.train import NewModelConfig, TuneConfig, new_model, tune


class Collection(Config):
    """A folder of queries in a known form."""

    kind: Literal["flan_cot"] = "flan_cot"
    path: InputPath
    pattern: str = "*.tsv"


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
        return self


class Suite(Config):
    """A benchmark to measure on."""

    kind: Literal["bbh", "agieval"]
    path: InputPath
    items: ItemsConfig = ItemsConfig()


class Answering(Config):
    """Who answers, and how."""

    file: InputPath | None = None
    """A teacher's file (TOML) or a folder of weights; None replays what the collection holds."""
    answers: AnswerConfig = AnswerConfig()


class OrcaConfig(Config):
    """Settings of the `orca` recipe."""

    name: str = "orca"
    """Name of the run; its nodes stand in `runs/<name>`. A file's own name, unless it says."""
    collection: Collection
    num_queries: int | None = Field(None, gt=0)
    """Queries to use; None takes all."""
    messages: tuple[SystemMessage, ...] = orca_messages()
    shares: dict[str, dict[str, float]] = orca_shares()
    assistant: Answering | None = None
    """Answers every prompt, and the student is trained on its answers first."""
    teacher: Answering = Answering()
    teacher_queries: int | None = Field(None, gt=0)
    """Of the assistant's prompts, how many the teacher answers; None is all of them."""
    teacher_takes: Literal["random", "wrong", "disagreement", "confidence"] = "random"
    """Which ones: drawn as in the paper, or those that the assistant found hard."""
    verify: VerifyConfig | None = None
    """Check the teacher's answers against the gold ones, instead of taking the first."""
    dialogue: DialogueConfig | None = None
    """Have the assistant question the teacher, instead of taking the first answer."""
    student: Student
    train: TuneConfig = TuneConfig(epochs=1.0)
    train_assistant: TuneConfig | None = None
    """Training on the assistant's answers; None is as `train`."""
    suites: tuple[Suite, ...] = ()
    measure: MeasureConfig = MeasureConfig()
    seed: int = 0

    @model_validator(mode="after")
    def _nested(self) -> "OrcaConfig":
        if self.assistant is None and (self.dialogue or self.teacher_queries):
            raise ValueError("dialogue and teacher_queries need an [assistant]")
        if self.verify and self.dialogue:
            raise ValueError("set verify or dialogue, not both")
        return self


def orca(config: OrcaConfig) -> Recipe:
    """Explanation tuning: sampled queries, assistant, teacher, student, BBH and AGIEval."""
    r = Recipe(config.name)
    prompts = _prompts(r, config)
    base = model = _base(r, config.student)
    answers: list[Ref] = []
    if config.assistant is not None:
        assisted = _ask(r, config, "assistant", config.assistant, prompts)
        answers.append(assisted)
        first = config.train_assistant or config.train
        model = r.add("student-assisted", tune, first, base=base, answers=[assisted])
        prompts = _teachers_share(r, config, prompts, assisted)
    taught = _teach(r, config, prompts)
    student = r.add("student", tune, config.train, base=model, answers=[taught])
    scores = _scores(r, config, {"base": base, "student": student})
    r.add(
        "report",
        page,
        ReportConfig(title=config.name, models=tuple(scores)),
        answers=[*answers, taught],
        students=[student],
        scores=list(scores.values()),
    )
    return r


def _prompts(r: Recipe, config: OrcaConfig) -> Node:
    read = FlanCotConfig(pattern=config.collection.pattern)
    queries = r.add("queries", flan_cot, read, folder=Source(config.collection.path))
    pairing = PairConfig(messages=config.messages, shares=config.shares, seed=config.seed)
    prompts = r.add("prompts", pair, pairing, queries=queries)
    if config.num_queries is None:
        return prompts
    size = SubsetConfig(num_rows=config.num_queries, seed=config.seed)
    return r.add("sampled", subset, size, prompts=prompts)


def _use(r: Recipe, config: OrcaConfig, who: Answering) -> Use:
    """Return the model that a file names, or the recorded answers of the collection."""
    if who.file is None:
        read = FlanCotConfig(pattern=config.collection.pattern)
        folder = Source(config.collection.path)
        recorded = r.add("recorded", flan_cot_rationales, read, folder=folder)
        return Use(Replay(name="human rationales"), recorded)
    found = read_teacher(who.file)
    weights = None if found.folder is None else Source(found.folder)
    return Use(found.config, weights, found.service)


def _ask(r: Recipe, config: OrcaConfig, name: str, who: Answering, prompts: Node) -> Node:
    return r.add(name, answer, who.answers, prompts=prompts, teacher=_use(r, config, who))


def _teachers_share(r: Recipe, config: OrcaConfig, prompts: Node, assisted: Node) -> Node:
    """Draw the teacher's prompts from the assistant's (Orca, section 3.2: 1 M of 5 M)."""
    num_rows = config.teacher_queries
    if num_rows is None:
        return prompts
    if config.teacher_takes == "random":
        size = SubsetConfig(num_rows=num_rows, seed=config.seed)
        return r.add("prompts-teacher", subset, size, prompts=prompts)
    hard = HardestConfig(by=config.teacher_takes, num_rows=num_rows, seed=config.seed)
    return r.add("prompts-teacher", hardest, hard, prompts=prompts, answers=[assisted])


def _teach(r: Recipe, config: OrcaConfig, prompts: Node) -> Node:
    who = config.teacher
    if config.verify is not None:
        teacher = _use(r, config, who)
        return r.add("answers", verified, config.verify, prompts=prompts, teacher=teacher)
    if config.dialogue is not None:
        assert config.assistant is not None
        teacher, assistant = _use(r, config, who), _use(r, config, config.assistant)
        talk = config.dialogue
        return r.add(
            "answers", discussed, talk, prompts=prompts, teacher=teacher, assistant=assistant
        )
    return _ask(r, config, "answers", who, prompts)


def _scores(r: Recipe, config: OrcaConfig, models: dict[str, Node | Source]) -> dict[str, Node]:
    items: list[Ref] = [add_items(r, suite) for suite in config.suites]
    scores = {}
    for name, model in models.items():
        if items:
            use = Use(Local(name=name), model)
            scores[name] = r.add(f"scores-{name}", measure, config.measure, items=items, model=use)
    return scores


def _base(r: Recipe, student: Student) -> Node | Source:
    if student.base is not None:
        return Source(student.base)
    assert student.tokenizer is not None
    return r.add("base", new_model, student.new, tokenizer=Source(Path(student.tokenizer)))


def add_items(r: Recipe, suite: Suite) -> Node:
    """Add the node that reads a suite's items."""
    reader = {"bbh": bbh, "agieval": agieval}[suite.kind]
    return r.add(f"items-{suite.kind}", reader, suite.items, folder=Source(suite.path))
