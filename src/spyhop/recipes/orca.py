"""Orca on real collections: explanation tuning from recorded or live teachers.

Source: Orca (arXiv:2306.02707): collections -> system messages -> answers of an assistant and of a
teacher -> training on one, then on the other -> BBH and AGIEval.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeVar

from pydantic import Field, model_validator

from spyhop import augment, collect
from spyhop.collect import pair
from spyhop.curate import DrawFailingConfig, SelectHardestConfig, draw_failing, select_hardest
from spyhop.evaluate import ContaminationRateConfig, MeasureConfig, SealConfig, check_contamination
from spyhop.models import Local, Replay
from spyhop.recipe.graph import Made, Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.arms import Ablation, Arm, ArmRows, arms
from spyhop.recipes.evaluating import SCORES, add_audits, add_scores, add_seal, written
from spyhop.recipes.inputs import (
    AuditJudge,
    Student,
    Suite,
    add_base,
    add_items,
    check_judged,
    one_of,
    placed,
    served,
)
from spyhop.recipes.mixture import Collection, Mixture, Ready, mixture, ready
from spyhop.recipes.orca_rounds import Rounds, RoundsConfig
from spyhop.report import DatasetConfig, ReportConfig, dataset, page
from spyhop.schema import Config, NoConfig, RecipeError
from spyhop.settings import InputPath
from spyhop.text.contamination import ContaminationConfig
from spyhop.train import TuneConfig, tune
from spyhop.train.probe import ProbeConfig, probe
from spyhop.train.release import ReleaseConfig, release, with_title

Recorded = Literal["rationales", "targets", "style"]


class Answering(Config):
    """Source of answers: a model, or recorded human rationales or gold answers."""

    file: InputPath | None = None
    """A teacher's file (TOML) or a folder of weights."""
    recorded: Recorded | None = None
    """Recorded answers to use instead of a model: the `rationales` of FLAN's chain-of-thought
    files, the bare gold answers (`targets`), or rationales of other questions before the right
    answer (`style`)."""
    answers: augment.AnswerConfig = augment.AnswerConfig()

    _one_origin = model_validator(mode="after")(one_of("file", "recorded"))


class MessageSearch(Config):
    """Queries to ask under every message, and what is compared."""

    num_queries: int = Field(gt=0)
    """Queries, evenly over the tasks; they need gold answers and are not trained on."""
    family: Literal["task", "collection"] = "task"
    """Queries that share a message."""
    per: Literal["token", "query"] = "token"
    """Whether messages are compared by verified answers per token that the teacher writes, or per
    query."""


SHARED = {"sampling"}
"""Settings of the teacher's plain answers that hold for checked and discussed ones, too."""
Teaching = TypeVar("Teaching", augment.VerifyConfig, augment.DialogueConfig)


class OrcaConfig(Config):
    """Settings of the `orca` recipe."""

    collections: tuple[Collection, ...] = Field(min_length=1)
    distinct: collect.DistinctConfig = collect.DistinctConfig()
    decontaminate: ContaminationConfig | None = ContaminationConfig()
    """Against the items of `suites`."""
    num_queries: int | None = Field(None, gt=0)
    """Queries to use. Default: all."""
    messages: tuple[collect.SystemMessage, ...] = collect.orca_messages()
    """System messages that queries are paired with."""
    shares: dict[str, dict[str, float]] = collect.orca_shares()
    """Weight of each system message for each collection, by the message's id."""
    search: MessageSearch | None = None
    """Search for the best message of each family, among those with a share; its winners replace the
    shares."""
    choice_rule: Literal["among_all", "always"] = "among_all"
    """When a multiple-choice query may get a message that is for multiple choice only."""
    assistant: Answering | None = None
    """Answers every prompt; the student learns from it first."""
    teacher: Answering = Answering(recorded="rationales")
    teacher_queries: int | None = Field(None, gt=0)
    """Number of the assistant's prompts that the teacher answers too. Default: all."""
    teacher_takes: Literal["random", "wrong", "disagreement", "confidence"] = "random"
    """Which ones: drawn as in the paper, or those that the assistant found hard."""
    verify: augment.VerifyConfig | None = None
    """Check the teacher's answers against the gold ones, instead of taking the first. What its
    `sampling` leaves open is that of `teacher.answers`."""
    dialogue: augment.DialogueConfig | None = None
    """Have the assistant question the teacher, instead of taking the first answer; `sampling` as
    with `verify`."""
    pick: augment.Keep = "all"
    """Which of the teacher's `num_samples` answers to a prompt to keep: all, the `verified` ones,
    those of the `majority`, the `shortest` verified or the most `likely` one."""
    ready: tuple[Ready, ...] = ()
    """Answers that exist already. The student learns from them beside the teacher's and the
    assistant's; without a [teacher] table, no teacher is asked."""
    rounds: RoundsConfig | None = None
    student: Student
    bases: tuple[InputPath, ...] = ()
    """Further bases that are trained on the same rows and measured, too."""
    train: TuneConfig = TuneConfig(epochs=1.0)
    train_assistant: TuneConfig | None = None
    """Training on the assistant's answers. Default: `train`."""
    ablate: tuple[Ablation, ...] = ()
    """Further students of the same rows, as `--ablate` names them."""
    suites: tuple[Suite, ...] = ()
    measure: MeasureConfig = MeasureConfig()
    sealed: SealConfig | None = None
    measure_teacher: bool = False
    """Also ask the teacher the items, where it is a model."""
    judge: AuditJudge = None
    probe: ProbeConfig | None = ProbeConfig()
    """Whether the student stops by itself and follows messages that it was not trained under."""
    release: ReleaseConfig = ReleaseConfig()
    """Export of the student, and facts for its model card that the run does not know."""
    seed: int = 0
    """Random seed of the draws."""

    @model_validator(mode="after")
    def _nested(self) -> "OrcaConfig":
        if self.assistant is None and (self.dialogue or self.teacher_queries):
            raise ValueError("dialogue and teacher_queries need an [assistant]")
        check_judged(self.judge, self.suites)
        if self.verify and self.dialogue:
            raise ValueError("set verify or dialogue, not both")
        has_assistant = self.assistant or any(each.by == "assistant" for each in self.ready)
        if self.train_assistant and not has_assistant:
            raise ValueError("train_assistant needs an [assistant]")
        if not self.has_teacher and (self.verify or self.dialogue or self.teacher_queries):
            raise ValueError("verify, dialogue and teacher_queries need a [teacher]")
        if self.pick == "likely" and not self.teacher.answers.sampling.log_probability:
            raise ValueError(
                'pick = "likely" needs teacher.answers.sampling.log_probability = true'
            )
        if self.search and (self.teacher.file is None or len(_used(self)) < 2):
            raise ValueError("search needs teacher.file and two messages with a share")
        if self.rounds and not (self.num_queries and self.suites and self.has_teacher):
            raise ValueError("rounds need num_queries to start with, [[suites]] and a [teacher]")
        if self.teacher_takes != "random" and self.teacher_queries is None:
            raise ValueError(f"teacher_takes = {self.teacher_takes!r} needs teacher_queries")
        plain = sorted(self.teacher.answers.model_fields_set - SHARED)
        if plain and (self.verify or self.dialogue):
            other = "verify" if self.verify else "dialogue"
            raise ValueError(f"[{other}] does not know teacher.answers.{plain[0]}; take one out")
        return self

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher is asked: if it is set, or if there are no ready answers instead."""
        return not self.ready or "teacher" in self.model_fields_set


def orca(config: OrcaConfig, name: str = "orca") -> Recipe:
    """Explanation tuning: collections, system messages, assistant, teacher, student, scores."""
    r = Recipe(name)
    suites = placed(config.suites)
    items = add_items(r, suites)
    data = mixture(r, config.collections, config.distinct, config.decontaminate, items, config.seed)
    asked_for = add_answers(r, config, data, add_prompts(r, config, data))
    rows = asked_for.rows
    base = add_base(r, config.student)
    students = [Arm("student"), *arms(config.ablate, _used(config))]
    bases = {re.sub("[^a-z0-9_.-]+", "-", each.name.lower()): Source(each) for each in config.bases}
    if len(bases) < len(config.bases):
        raise RecipeError("two of bases have the same name; rename a folder")
    trained_on = {arm.name: (arm, base) for arm in students}
    trained_on |= {f"student-{name}": (Arm(f"student-{name}"), at) for name, at in bases.items()}
    names = ["base", *(f"base-{name}" for name in bases), *trained_on]
    names += config.rounds.names() if config.rounds else []
    declared = add_seal(r, config.sealed, config.measure, suites, items, names)
    starts = {"base": base, **{f"base-{name}": folder for name, folder in bases.items()}}
    asked = {name: Use(Local(name=name), folder) for name, folder in starts.items()}

    def score(asked: dict[str, Use]) -> dict[str, Ref]:
        return add_scores(r, config.measure, suites, items, asked, SCORES, **declared)

    scores: dict[str, Ref] = score(asked) if items else {}  # before anything is trained
    phases = {name: train_arm(r, config, *each, rows) for name, each in trained_on.items()}
    asked = {name: Use(Local(name=name), steps[-1]) for name, steps in phases.items()}
    if config.measure_teacher and config.teacher.file is not None:
        asked["teacher"] = served(config.teacher.file)
    scores |= score(asked) if items else {}
    answers = {**rows["ta"], **rows["teacher"]}
    shown = dict(answers)
    more: dict[str, Ref | dict[str, Ref]] = {**declared}
    best: dict[str, Made] = {"model": phases["student"][-1]}
    best |= {"scores": r.step(f"{SCORES}student")} if items else {}
    if config.rounds and asked_for.taught:
        loop = _rounds(r, config, asked_for, base, score)
        best = loop.add(asked_for.prompts, asked_for.taught, **best)
        answers["teacher"], shown = best["answers"], shown | loop.answers
        phases, scores = phases | loop.students, scores | loop.scores
        more |= {"rounds": loop.draws, "promotions": loop.promotions}
    if items:
        look = ContaminationRateConfig()
        more["items"] = items
        more["shared"] = r.add("shared", check_contamination, look, items=items, answers=answers)
    if scores and answers and written(config.measure, suites):
        by = [] if config.judge is None else [served(config.judge)]
        pair = scores["base"], best["scores"]
        more["audits"] = add_audits(r, by, items, *pair, answers)
    if config.search is not None:
        more["searched"] = r.step("searched")
    card = DatasetConfig(title=r.name)
    given = r.add("dataset", dataset, card, answers=answers, queries=data.queries)
    known: dict[str, Ref | dict[str, Ref]] = {"scores": best["scores"]} if items else {}
    if earlier := phases["student"][:-1]:
        known["earlier"] = {step.name: step for step in earlier}
    if config.probe is not None:
        asked_last = Use(Local(name="student"), best["model"])
        probed = r.add("probe", probe, config.probe, answers=answers, model=asked_last)
        known["probe"], more["probes"] = probed, {"student": probed}
    r.add(
        "model", release, with_title(config.release, r.name), model=best["model"],
        base=base, answers=answers, data=given, **known,
    )  # fmt: skip
    names_by_arm = {name: tuple(step.name for step in steps) for name, steps in phases.items()}
    r.add(
        "report", page, ReportConfig(title=r.name, phases=names_by_arm), answers=shown,
        students={step.name: step for steps in phases.values() for step in steps},
        scores=scores, data=data.data, **more,
    )  # fmt: skip
    return r


def _used(config: OrcaConfig) -> list[str]:
    """Return the ids of the system messages that the collections' shares give any weight."""
    labels = [each.label for each in config.collections]
    shares = [config.shares.get(label, config.shares.get("*", {})) for label in labels]
    used = {name for weights in shares for name, weight in weights.items() if weight > 0}
    return [message.id for message in config.messages if message.id in used]


class Asked(NamedTuple):
    """Prompts and the answers to them."""

    rows: ArmRows
    pool: Made
    """All prompts."""
    prompts: Made
    """Those that the teacher answered."""
    taught: RecipeStep | None
    """The teacher's answers."""
    dev: RecipeStep | None
    """Development prompts of the rounds."""
    teach: Callable[[Recipe, Made], RecipeStep]
    """Adds the teacher's answers to further prompts."""


def add_prompts(r: Recipe, config: OrcaConfig, data: Mixture) -> RecipeStep:
    """Add the prompts: queries under system messages."""
    pairing = collect.PairConfig(
        messages=config.messages, shares=config.shares, choice_rule=config.choice_rule,
        seed=config.seed,
    )  # fmt: skip
    more: dict[str, Ref | dict[str, Ref]] = {"own": data.own} if data.own else {}
    if config.search is not None and config.teacher.file is not None:
        used = _used(config)
        size = collect.DrawConfig(num_rows=config.search.num_queries, seed=config.seed)
        some = r.add("search-queries", collect.draw, size, queries={"all": data.queries})
        how = augment.SearchMessagesConfig(
            messages=tuple(each for each in config.messages if each.id in used),
            family=config.search.family, per=config.search.per,
            sampling=config.teacher.answers.sampling,
        )  # fmt: skip
        teacher = served(config.teacher.file)
        more["searched"] = r.add(
            "searched", augment.search_messages, how, queries=some, teacher=teacher
        )
    return r.add("prompts", pair, pairing, queries=data.queries, **more)


def add_answers(r: Recipe, config: OrcaConfig, data: Mixture, pool: Made) -> Asked:
    """Add the answers to prompts, or to as many of them as the settings say."""
    prompts, dev = pool, None
    if config.rounds is not None and config.num_queries is not None:
        some = DrawFailingConfig(num_rows=config.rounds.dev_queries, seed=config.seed)
        dev = r.add("dev", draw_failing, some, prompts=pool)
        some = some.model_copy(update={"num_rows": config.num_queries})
        prompts = r.add("sampled", draw_failing, some, prompts=pool, known={"dev": dev})
    elif config.num_queries is not None:
        size = collect.SubsetConfig(num_rows=config.num_queries, seed=config.seed)
        prompts = r.add("sampled", collect.draw_subset, size, prompts=prompts)
    ta_answers = ready(r, config.ready, "assistant")
    assistant = None
    if config.assistant is not None:
        assistant = _use(r, config, data, config.assistant, "assisted")
        how = config.assistant.answers
        given = r.add("assisted", augment.answer, how, prompts=prompts, teacher=assistant)
        ta_answers = {"assistant": given, **ta_answers}
        prompts = _teachers_share(r, config, prompts, {"assistant": given})
    teacher_answers = ready(r, config.ready, "teacher")

    def teach(r: Recipe, prompts: Made) -> RecipeStep:
        given = _teach(r, config, data, prompts, assistant)
        if config.pick == "all":
            return given
        keep = augment.PickConfig(keep=config.pick)
        return r.add("picked", augment.pick_answers, keep, answers=given)

    taught = teach(r, prompts) if config.has_teacher else None
    if taught is not None:
        teacher_answers = {"teacher": taught, **teacher_answers}
    plain = augment.AnswerConfig()
    rows: ArmRows = {"ta": ta_answers, "teacher": teacher_answers}
    for kind, name, ablations, recorded in _CONTROLS:
        if not ablations.isdisjoint(config.ablate):
            use = _use(r, config, data, Answering(recorded=recorded), name)
            given = r.add(name, augment.answer, plain, prompts=prompts, teacher=use)
            rows[kind] = {name: given}
    if "humans" in config.ablate:
        people = _use(r, config, data, Answering(recorded="rationales"), "human")
        assert people.folder is not None
        own = {"prompts": prompts, "recorded": people.folder}
        kept = r.add("human-prompts", collect.keep_recorded, NoConfig(), **own)
        given = r.add("human", augment.answer, plain, prompts=kept, teacher=people)
        rows["human"], like = {"human": given}, augment.FilterAnswersConfig()
        rows["same"] = {
            f"same.{name}": r.add(
                f"same.{name}", augment.filter_answers, like, answers=each, like=kept
            )
            for name, each in teacher_answers.items()
        }
    return Asked(rows, pool, prompts, taught, dev, teach)


def _rounds(
    r: Recipe,
    config: OrcaConfig,
    asked: Asked,
    base: RecipeStep | Source,
    score: Callable[[dict[str, Use]], dict[str, Ref]],
) -> Rounds:
    """Return the rounds, still to be added; their students are measured under one name."""
    assert config.rounds is not None and asked.dev is not None

    def train(name: str, taught: Made) -> list[RecipeStep]:
        rows = {**asked.rows, "teacher": {**asked.rows["teacher"], "teacher": taught}}
        return train_arm(r, config, Arm(name), base, rows)

    def measure(name: str, model: RecipeStep) -> RecipeStep:
        score({name: Use(Local(name="student"), model)})
        return r.step(f"{SCORES}{name}")

    return Rounds(
        r, config.rounds, config.seed, config.measure.sampling, asked.pool, asked.dev,
        asked.teach, train, measure,
    )  # fmt: skip


_CONTROLS: tuple[tuple[str, str, set[Ablation], Recorded], ...] = (
    ("gold", "bare", {"answers", "queries"}, "targets"),
    ("style", "styled", {"style"}, "style"),
)
"""Rows of students that read no explanation of the teacher: kind, step, ablations, answers."""


def _use(r: Recipe, config: OrcaConfig, data: Mixture, who: Answering, name: str) -> Use:
    """Return the model that answers; recorded answers become the step `<name>-recorded`."""
    if who.file is not None:
        return served(who.file)
    if who.recorded == "targets":
        gold = r.add(f"{name}-recorded", collect.record_targets, NoConfig(), queries=data.queries)
        return Use(Replay(name="gold answers"), gold)
    cot = [each for each in config.collections if each.kind == "flan_cot" and each.path]
    if len(cot) != 1 or cot[0].path is None:
        raise RecipeError(
            f'recorded = "{who.recorded}" needs one collection of kind flan_cot with a path'
        )
    pattern = cot[0].pattern or "*.tsv"
    read = collect.RationalesConfig(pattern=pattern, of_others=who.recorded == "style")
    given = r.add(f"{name}-recorded", collect.read_rationales, read, folder=Source(cot[0].path))
    return Use(Replay(name="human rationales"), given)


def _teachers_share(
    r: Recipe, config: OrcaConfig, prompts: Made, ta_answers: Mapping[str, Ref]
) -> Made:
    """Draw the teacher's prompts from the assistant's (Orca, section 3.2: 1 M of 5 M)."""
    num_rows = config.teacher_queries
    if num_rows is None:
        return prompts
    if config.teacher_takes == "random":
        size = collect.SubsetConfig(num_rows=num_rows, seed=config.seed)
        return r.add("for-teacher", collect.draw_subset, size, prompts=prompts)
    hard = SelectHardestConfig(by=config.teacher_takes, num_rows=num_rows, seed=config.seed)
    return r.add("for-teacher", select_hardest, hard, prompts=prompts, answers=ta_answers)


def _teach(
    r: Recipe, config: OrcaConfig, data: Mixture, prompts: Made, assistant: Use | None
) -> RecipeStep:
    """Add the teacher's answers: checked, discussed with the assistant, or the first ones."""
    teacher, plain = _use(r, config, data, config.teacher, "answers"), config.teacher.answers
    if config.verify is not None:
        checking = _as_plain(config.verify, plain)
        return r.add("answers", augment.verify, checking, prompts=prompts, teacher=teacher)
    if config.dialogue is not None:
        assert assistant is not None
        both = {"teacher": teacher, "assistant": assistant}
        return r.add(
            "answers", augment.discuss, _as_plain(config.dialogue, plain), prompts=prompts, **both
        )
    return r.add("answers", augment.answer, plain, prompts=prompts, teacher=teacher)


def _as_plain(how: Teaching, plain: augment.AnswerConfig) -> Teaching:
    """Return the settings with what was said of plain answers where they say nothing themselves."""
    own = how.sampling.model_fields_set if "sampling" in how.model_fields_set else set[str]()
    said = {name: getattr(plain.sampling, name) for name in plain.sampling.model_fields_set - own}
    values = {**how.model_dump(), "sampling": {**how.sampling.model_dump(), **said}}
    for name in plain.model_fields_set - how.model_fields_set - {"sampling"}:
        values[name] = getattr(plain, name)
    return type(how).model_validate(values)


def train_arm(
    r: Recipe, config: OrcaConfig, arm: Arm, base: RecipeStep | Source, rows: ArmRows
) -> list[RecipeStep]:
    """Add the phases of a student's training and return them; the last one is the student."""
    model = base
    trained: list[RecipeStep] = []
    phases = arm.phases(r, rows, config.seed)
    once = {} if arm.epochs is None else {"tokens": None, "epochs": arm.epochs}
    for number, (kind, answers) in enumerate(phases, 1):
        name = arm.name if number == len(phases) else f"{arm.name}.{number}"
        is_first = kind == "ta" and len(phases) > 1
        how = (is_first and config.train_assistant) or config.train
        model = r.add(name, tune, how.model_copy(update=once), base=model, answers=answers)
        trained.append(model)
    return trained
