"""Orca on real collections: explanation tuning from recorded or live teachers.

Source: Orca (arXiv:2306.02707): collections -> system messages -> answers -> training -> BBH and
AGIEval.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from spyhop.augment import AnswerConfig, answer
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
from spyhop.evaluate import ItemsConfig, MeasureConfig, agieval, bbh, measure
from spyhop.models import Local, Replay
from spyhop.recipe.graph import Node, Recipe, Ref, Source, Use
from spyhop.recipe.load import InputPath
from spyhop.report import ReportConfig, page
from spyhop.schema import Config
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


class OrcaConfig(Config):
    """Settings of the `orca` recipe."""

    name: str = "orca"
    """Name of the run; its nodes stand in `runs/<name>`. A file's own name, unless it says."""
    collection: Collection
    num_queries: int | None = Field(None, gt=0)
    """Queries to use; None takes all."""
    messages: tuple[SystemMessage, ...] = orca_messages()
    shares: dict[str, dict[str, float]] = orca_shares()
    answers: AnswerConfig = AnswerConfig()
    student: Student
    train: TuneConfig = TuneConfig(epochs=1.0)
    suites: tuple[Suite, ...] = ()
    measure: MeasureConfig = MeasureConfig()
    seed: int = 0


def orca(config: OrcaConfig) -> Recipe:
    """FLAN-CoT with its human rationales as the teacher, measured on BBH and AGIEval."""
    r = Recipe(config.name)
    folder = Source(config.collection.path)
    read = FlanCotConfig(pattern=config.collection.pattern)
    queries = r.add("queries", flan_cot, read, folder=folder)
    recorded = r.add("recorded", flan_cot_rationales, read, folder=folder)
    pairing = PairConfig(messages=config.messages, shares=config.shares, seed=config.seed)
    prompts = r.add("prompts", pair, pairing, queries=queries)
    if config.num_queries is not None:
        size = SubsetConfig(num_rows=config.num_queries, seed=config.seed)
        prompts = r.add("sampled", subset, size, prompts=prompts)
    teacher = Use(Replay(name="human rationales"), recorded)
    answers = r.add("answers", answer, config.answers, prompts=prompts, teacher=teacher)
    base = _base(r, config.student)
    student = r.add("student", tune, config.train, base=base, answers=[answers])
    items: list[Ref] = [add_items(r, suite) for suite in config.suites]
    scores = {}
    for name, model in (("base", base), ("student", student)):
        if items:
            use = Use(Local(name=name), model)
            scores[name] = r.add(f"scores-{name}", measure, config.measure, items=items, model=use)
    r.add(
        "report",
        page,
        ReportConfig(title=config.name, models=tuple(scores)),
        answers=[answers],
        students=[student],
        scores=list(scores.values()),
    )
    return r


def _base(r: Recipe, student: Student) -> Node | Source:
    if student.base is not None:
        return Source(student.base)
    assert student.tokenizer is not None
    return r.add("base", new_model, student.new, tokenizer=Source(Path(student.tokenizer)))


def add_items(r: Recipe, suite: Suite) -> Node:
    """Add the node that reads a suite's items."""
    reader = {"bbh": bbh, "agieval": agieval}[suite.kind]
    return r.add(f"items-{suite.kind}", reader, suite.items, folder=Source(suite.path))
