"""Orca on real collections: explanation tuning from recorded or live teachers.

Source: Orca (arXiv:2306.02707): collections -> system messages -> answers of an assistant and of a
teacher -> training on one, then on the other -> BBH and AGIEval.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from spyhop.augment import AnswerConfig, answer
from spyhop.collect import (
    DecontaminateConfig,
    DistinctConfig,
    FlanCotConfig,
    PairConfig,
    SubsetConfig,
    SystemMessage,
    TargetsConfig,
    flan_cot_rationales,
    orca_messages,
    orca_shares,
    pair,
    recorded_targets,
    subset,
)
from spyhop.evaluate import ItemsConfig, MeasureConfig, agieval, bbh, measure, questions
from spyhop.models import Local, Replay
from spyhop.recipe.graph import Node, Recipe, Ref, Source, Use
from spyhop.recipe.load import InputPath
from spyhop.recipes.arms import Ablation, Arm, Rows, arms
from spyhop.recipes.mixture import Collection, Mixture, Ready, mixture, ready
from spyhop.report import ExportConfig, ReportConfig, export, page
from spyhop.schema import Config, RecipeError
from spyhop.train import NewModelConfig, TuneConfig, new_model, tune


class Answering(Config):
    """Who answers: human rationales or gold answers on record, or a model."""

    recorded: Literal["rationales", "targets"] | None = None
    """`rationales` are those of FLAN's chain-of-thought files, `targets` the bare gold answers."""
    model: InputPath | None = None
    """Folder of a causal language model."""
    name: str = ""
    answers: AnswerConfig = AnswerConfig()

    @model_validator(mode="after")
    def _one_origin(self) -> "Answering":
        if (self.recorded is None) == (self.model is None):
            raise ValueError("set exactly one of recorded and model")
        return self


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

    kind: Literal["bbh", "agieval", "questions"]
    """`questions` are your own: JSONL, CSV or Parquet with `question`, `answer` and `options`."""
    path: InputPath
    items: ItemsConfig = ItemsConfig()


class OrcaConfig(Config):
    """Settings of the `orca` recipe."""

    name: str = "orca"
    """Name of the run; its nodes stand in `runs/<name>`. A file's own name, unless it says."""
    collections: tuple[Collection, ...] = Field(min_length=1)
    distinct: DistinctConfig = DistinctConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    """Against the items of `suites`."""
    num_queries: int | None = Field(None, gt=0)
    """Queries to use; None takes all."""
    messages: tuple[SystemMessage, ...] = orca_messages()
    shares: dict[str, dict[str, float]] = orca_shares()
    choice_rule: Literal["among_all", "always"] = "among_all"
    assistant: Answering | None = None
    """Answers every query; the student learns from it first."""
    teacher: Answering = Answering(recorded="rationales")
    teacher_queries: int | None = Field(None, gt=0)
    """Queries that the teacher answers, a random part of all; None is all of them."""
    ready: tuple[Ready, ...] = ()
    """Answers one already has; the student learns from them beside the teacher's."""
    student: Student
    train: TuneConfig = TuneConfig(epochs=1.0)
    train_teacher: TuneConfig | None = None
    """Of the second stage, on the teacher's answers; None trains as in `train`."""
    ablate: tuple[Ablation, ...] = ()
    """Further students that learn from the same rows in another way."""
    suites: tuple[Suite, ...] = ()
    measure: MeasureConfig = MeasureConfig()
    measure_teacher: bool = False
    """Also ask the teacher the items, where it is a model."""
    seed: int = 0


def orca(config: OrcaConfig) -> Recipe:
    """Explanation tuning: collections, system messages, assistant, teacher, student, scores."""
    r = Recipe(config.name)
    items: list[Ref] = [_items(r, suite) for suite in config.suites]
    data = mixture(r, config.collections, config.distinct, config.decontaminate, items, config.seed)
    rows = _rows(r, config, data)
    base = _base(r, config.student)
    models: dict[str, Node | Source] = {"base": base}
    for arm in (Arm("student"), *arms(config.ablate, _used(config))):
        models[arm.name] = _train(r, config, arm, rows, base)
    asked = dict(models)
    if config.measure_teacher and config.teacher.model is not None:
        asked["teacher"] = Source(config.teacher.model)
    scores: list[Ref] = []
    for name, model in asked.items() if items else ():
        use = Use(Local(name=name), model)
        scores.append(r.add(f"scores-{name}", measure, config.measure, items=items, model=use))
    answers = [*rows.assisted, *rows.taught]
    r.add("export", export, ExportConfig(title=config.name), answers=answers, queries=data.queries)
    students = tuple(name for name in models if name != "base")
    r.add(
        "report",
        page,
        ReportConfig(title=config.name, models=tuple(asked) if items else (), students=students),
        answers=answers,
        students=[models[name] for name in students],
        scores=scores,
        data=[*data.drawn, *data.steps],
    )
    return r


def _used(config: OrcaConfig) -> list[str]:
    """Return the ids of the system messages that the collections' shares give any weight."""
    labels = [each.label for each in config.collections]
    shares = [config.shares.get(label, config.shares.get("*", {})) for label in labels]
    used = {name for weights in shares for name, weight in weights.items() if weight > 0}
    return [message.id for message in config.messages if message.id in used]


def _rows(r: Recipe, config: OrcaConfig, data: Mixture) -> Rows:
    """Add the prompts and who answers them."""
    pairing = PairConfig(
        messages=config.messages,
        shares=config.shares,
        choice_rule=config.choice_rule,
        seed=config.seed,
    )
    prompts = r.add("prompts", pair, pairing, queries=data.queries)
    if config.num_queries is not None:
        size = SubsetConfig(num_rows=config.num_queries, seed=config.seed)
        prompts = r.add("sampled", subset, size, prompts=prompts)
    assisted: list[Ref] = []
    if config.assistant is not None:
        assisted.append(_answers(r, config, data, config.assistant, "assisted", prompts))
    if config.teacher_queries is not None:
        size = SubsetConfig(num_rows=config.teacher_queries, seed=config.seed)
        prompts = r.add("for-teacher", subset, size, prompts=prompts)
    taught: list[Ref] = [_answers(r, config, data, config.teacher, "answers", prompts)]
    bare: list[Ref] = []
    if "answers" in config.ablate:
        targets = Answering(recorded="targets")
        bare.append(_answers(r, config, data, targets, "bare", prompts))
    return Rows(assisted, [*taught, *ready(r, config.ready)], bare)


def _answers(
    r: Recipe, config: OrcaConfig, data: Mixture, who: Answering, name: str, prompts: Node
) -> Node:
    use = Use(Local(name=who.name or name), Source(who.model)) if who.model else None
    if who.recorded == "targets":
        recorded = r.add(
            f"{name}-recorded", recorded_targets, TargetsConfig(), queries=data.queries
        )
        use = Use(Replay(name=who.name or "gold answers"), recorded)
    elif who.recorded == "rationales":
        cot = [each for each in config.collections if each.kind == "flan_cot" and each.path]
        if len(cot) != 1 or cot[0].path is None:
            raise RecipeError(
                'recorded = "rationales" needs exactly one collection of kind flan_cot with a path'
            )
        read = FlanCotConfig(pattern=cot[0].pattern or "*.tsv")
        recorded = r.add(f"{name}-recorded", flan_cot_rationales, read, folder=Source(cot[0].path))
        use = Use(Replay(name=who.name or "human rationales"), recorded)
    assert use is not None
    return r.add(name, answer, who.answers, prompts=prompts, teacher=use)


def _train(
    r: Recipe, config: OrcaConfig, arm: Arm, rows: Rows, base: Node | Source
) -> Node | Source:
    """Add the stages of a student's training and return the last one."""
    model = base
    phases = arm.phases(r, rows, config.seed)
    for number, phase in enumerate(phases, 1):
        last = number == len(phases)
        is_second = phase.is_teachers and config.train_teacher is not None and len(phases) > 1
        settings = config.train_teacher if is_second else config.train
        assert settings is not None
        name = arm.name if last else f"{arm.name}.{number}"
        model = r.add(name, tune, settings, base=model, answers=phase.answers)
    return model


def _base(r: Recipe, student: Student) -> Node | Source:
    if student.base is not None:
        return Source(student.base)
    assert student.tokenizer is not None
    return r.add("base", new_model, student.new, tokenizer=Source(Path(student.tokenizer)))


def _items(r: Recipe, suite: Suite) -> Node:
    reader = {"bbh": bbh, "agieval": agieval, "questions": questions}[suite.kind]
    return r.add(f"items-{suite.kind}", reader, suite.items, folder=Source(suite.path))
