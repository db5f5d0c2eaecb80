"""The Orca loop in miniature, with the controls that the paper lacks.

Every arm starts from the same model and differs in what it reads:

    base              not trained, asked to explain; base-answers, asked for the answer alone
    explanations      the teacher's answers under system messages that ask for reasons
    answers-tokens    the bare answers to the same queries, for as many tokens
    answers-queries   the bare answers to the same queries, for as many passes
    style             explanations of the same form, but with random steps (and the right answer)
    ta                the teaching assistant's explanations: many, often wrong
    teacher           the teacher's explanations of a few queries
    progressive       the assistant's first, then the teacher's (Orca's order)
    mixed             the same rows as progressive, shuffled
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, model_validator

from spyhop import world
from spyhop.augment import AnswerConfig, answer
from spyhop.collect import PairConfig, SubsetConfig, SystemMessage, draw_subset, pair
from spyhop.evaluate import MeasureConfig, SealConfig, measure, seal
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.auditing import add_audits
from spyhop.recipes.experiment import ExperimentSetting, comparisons, starting_model, titles, tuning
from spyhop.report import ArmRun, ArmsConfig, arms_page
from spyhop.schema import Config
from spyhop.stage import Stage
from spyhop.train import OptimizerConfig, TuneConfig, tune
from spyhop.world import SolverConfig

ArmName = Literal[
    "base",
    "base-answers",
    "explanations",
    "answers-tokens",
    "answers-queries",
    "style",
    "ta",
    "teacher",
    "progressive",
    "mixed",
]
TokenBudget = Literal["tokens", "few_tokens", "passes"]


ASSISTANT = SolverConfig(misconceptions=True, slip_rate=0.08)
ANSWER, STEPS = "answer", "steps"
"""Ids of the messages under which bare answers are trained and explaining arms are measured."""
OF_INTEREST = 0.05
"""Smallest difference in accuracy that is of interest."""
NEW_TOKENS, PRETRAINED_TOKENS = 256, 128
"""Longest response of a new student, and of a pretrained one, whose base writes without end: twice
the teacher's longest explanation of four steps."""
AUDITED_ITEMS = 100
"""Test problems that the starting model is asked, for the imitation audit."""
TEACHER_FRAC = 0.25
"""Share of the teacher's rows in the budgets of `progressive` and `mixed`."""
TEACHER_RATE, TEACHER_WARMUP_STEPS = 0.3, 30
"""Of the second phase of `progressive`: its learning rates as a share of the first's, warm-up."""


class WorldMessage(Config):
    """A system message of the embedded world, and its weight among the explained queries."""

    id: str
    """Name of the message in the report."""
    text: str
    """Text of the message."""
    share: float = Field(ge=0)
    """Relative frequency of the message."""


class Setting(ExperimentSetting):
    """Families of problems, the student that learns them, and the budgets."""

    families: tuple[world.FamilyName, ...] = Field(min_length=1)
    """Families of problems."""
    arms: tuple[ArmName, ...] = Field(min_length=1)
    """Students to train and compare."""
    num_queries: int = Field(8000, gt=0)
    """Queries that teacher and assistant answer."""
    tokens: int = Field(1_000_000, gt=0)
    """Budget of the explanations arm and its controls."""
    passes: float = Field(1.25, gt=0)
    """Passes over the queries that `tokens` amounts to with explanations."""
    few_tokens: int = Field(500_000, gt=0)
    """Budget of the arms that compare assistant and teacher."""
    teacher_queries: int = Field(100, gt=0)
    """Queries that the teacher explains in these arms; the assistant explains all."""


class QuickstartConfig(Config):
    """Settings of the `quickstart` recipe."""

    settings: tuple[Setting, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each seed draws its own queries, answers and order of training."""
    messages: tuple[WorldMessage, ...]
    """Explained queries get one of them by share; `answer_message` belongs to the bare answers."""
    snapshots: tuple[float, ...] = ()
    """Shares of the training after which the first two arms are measured for a learning curve."""

    @model_validator(mode="after")
    def _fits_together(self) -> "QuickstartConfig":
        known = [message.id for message in self.messages]
        for name in (ANSWER, STEPS):
            if name not in known:
                raise ValueError(f"no system message has the id {name!r}; known: {known}")
        if not sum(message.share for message in self.messages):
            raise ValueError("the shares of all system messages are 0")
        if not all(0 < share < 1 for share in self.snapshots):
            raise ValueError("snapshots are shares of the training, above 0 and below 1")
        return self


@dataclass(frozen=True, slots=True)
class PhaseBudget:
    """One stage of an arm's training."""

    rows: tuple[str, ...]
    budget: TokenBudget
    share: float = 1.0
    is_gentle: bool = False


_TA, _TEACHER = "assisted", "taught"


def _phases(arm: ArmName, setting: Setting) -> tuple[PhaseBudget, ...]:
    frac = TEACHER_FRAC
    table: dict[ArmName, tuple[PhaseBudget, ...]] = {
        "base": (),
        "base-answers": (),
        "explanations": (PhaseBudget(("explained",), "tokens"),),
        "answers-tokens": (PhaseBudget(("answered",), "tokens"),),
        "answers-queries": (PhaseBudget(("answered",), "passes"),),
        "style": (PhaseBudget(("styled",), "tokens"),),
        "ta": (PhaseBudget((_TA,), "few_tokens"),),
        "teacher": (PhaseBudget((_TEACHER,), "few_tokens"),),
        "progressive": (
            PhaseBudget((_TA,), "few_tokens", 1 - frac),
            PhaseBudget((_TEACHER,), "few_tokens", frac, is_gentle=True),
        ),
        "mixed": (PhaseBudget((_TA, _TEACHER), "few_tokens"),),
    }
    return table[arm]


CAVEAT = (
    "The tasks are generated and small, the students are tiny and start from a stage of copying "
    "that replaces pre-training. They know nothing else, and these figures say nothing about "
    "models of 7 or 13 billion parameters. They show the mechanism, and how to measure it."
)
ONE_SEED = (
    "There is one seed: intervals are over test items only and say nothing about another draw of "
    "data or another order of training. spyhop quickstart --thorough runs five."
)
SHARED = (
    "A seed draws the training queries, the assistant's slips and the order of training. All seeds "
    "share one starting model and one set of test problems."
)


def quickstart(config: QuickstartConfig, name: str = "quickstart") -> Recipe:
    """The Orca loop in an embedded world: explanations, bare answers, style, and teacher order."""
    r = Recipe(name)
    runs: dict[str, ArmRun] = {}
    scores: dict[str, Ref] = {}
    students: dict[str, Ref] = {}
    samples: dict[str, Ref] = {}
    declared: dict[str, Ref] = {}
    starts: dict[str, RecipeStep | Source] = {}
    for setting in config.settings:
        base = starts[setting.name] = starting_model(r, setting, world.TokenizerConfig())
        drawn = world.ProblemsConfig(
            families=setting.families, num_rows=setting.num_items, steps=setting.steps
        )
        items = r.add(f"{setting.name}.items", world.draw_items, drawn)
        sealed = r.add(f"{setting.name}.sealed", seal, _sealed(setting), items={"world": items})
        declared[setting.name] = sealed
        for seed in config.seeds:
            rows = _Rows(r, config, setting, seed)
            for arm in setting.arms:
                trained = _train(r, config, setting, seed, arm, rows, base)
                students |= {phase.name: phase for phase in trained}
                for share in (*_snapshots(config, arm), 1.0):
                    name = f"{setting.name}.{arm}.{seed}"
                    model = trained[-1] if trained else base
                    step = _measure(r, config, setting, name, arm, model, items, sealed, share)
                    scores[step.name] = step
                    runs[step.name] = ArmRun(
                        setting=setting.name,
                        arm=arm,
                        seed=seed,
                        phases=tuple(phase.name for phase in trained),
                        share=share,
                    )
            samples = samples or {"teacher": rows.step("explained")}
    audits = _audits(r, config, scores, samples, starts[config.settings[0].name])
    page = ArmsConfig(
        title=r.name,
        runs=runs,
        comparisons=comparisons(get_args(ArmName)),
        arm_titles=titles(get_args(ArmName)),
        caveats=(CAVEAT, SHARED if len(config.seeds) > 1 else ONE_SEED),
    )
    r.add(
        "report", arms_page, page, scores=scores, students=students, answers=samples,
        audits=audits, sealed=declared,
    )  # fmt: skip
    return r


def _audits(
    r: Recipe,
    config: QuickstartConfig,
    scores: Mapping[str, Ref],
    teacher: Mapping[str, Ref],
    start: RecipeStep | Source,
) -> dict[str, Ref]:
    """Add the imitation audit of the first setting's first student that reads explanations.

    Its judges are scripted: one rewards style alone, one checks the answers.
    """
    setting = config.settings[0]
    student = scores.get(f"{setting.name}.explanations.{config.seeds[0]}.scores")
    if student is None:
        return {}
    drawn = world.ProblemsConfig(
        families=setting.families,
        num_rows=min(AUDITED_ITEMS, setting.num_items),
        steps=setting.steps,
    )
    items = {"world": r.add("audit.problems", world.draw_items, drawn)}
    text = next(message.text for message in config.messages if message.id == STEPS)
    asked = _asked(setting, text)
    base = Use(Local(name="base"), start)
    measured = r.add("audit.base", measure, asked, items=items, model=base)
    judges = [
        Use(world.Judge(name=f"that rewards {each}", rules=world.JudgeRules(rewards=each)))
        for each in get_args(world.Rewarded)
    ]
    return add_audits(r, judges, items, measured, student, teacher)


class _Rows:
    """The answers that arms of one seed are trained on, added to the recipe when first used."""

    def __init__(self, r: Recipe, config: QuickstartConfig, setting: Setting, seed: int) -> None:
        self._r, self._config, self._setting, self._seed = r, config, setting, seed
        self._steps: dict[str, RecipeStep] = {}
        drawn = world.ProblemsConfig(
            families=setting.families, num_rows=setting.num_queries, steps=setting.steps, seed=seed
        )
        self._queries = self._add("queries", world.draw_queries, drawn)

    def step(self, kind: str) -> RecipeStep:
        """Return the answers of one kind."""
        if kind not in self._steps:
            prompts = self._prompts("bare" if kind == "answered" else "explaining")
            if kind == _TEACHER:
                size = SubsetConfig(num_rows=self._setting.teacher_queries, seed=self._seed)
                prompts = self._add("few", draw_subset, size, prompts=prompts)
            teacher = Use(self._teacher(kind))
            asked = AnswerConfig()
            self._steps[kind] = self._add(kind, answer, asked, prompts=prompts, teacher=teacher)
        return self._steps[kind]

    def _prompts(self, kind: str) -> RecipeStep:
        if kind not in self._steps:
            chosen = {m.id: m.share for m in self._config.messages if m.share > 0}
            if kind == "bare":
                chosen = {ANSWER: 1.0}
            messages = tuple(
                SystemMessage(id=m.id, text=m.text) for m in self._config.messages if m.id in chosen
            )
            pairing = PairConfig(messages=messages, shares={"*": chosen}, seed=self._seed)
            self._steps[kind] = self._add(kind, pair, pairing, queries=self._queries)
        return self._steps[kind]

    def _teacher(self, kind: str) -> world.Solver:
        if kind == _TA:
            seeded = ASSISTANT.model_copy(update={"seed": self._seed})
            return world.Solver(name="teaching assistant", solver=seeded)
        if kind == "styled":
            corrupt = SolverConfig(corrupt=True, seed=self._seed)
            return world.Solver(name="corrupted teacher", solver=corrupt)
        return world.Solver()

    def _add(self, kind: str, stage: Stage, config: Config, **inputs: Ref) -> RecipeStep:
        return self._r.add(f"{self._setting.name}.{kind}.{self._seed}", stage, config, **inputs)


def _train(
    r: Recipe,
    config: QuickstartConfig,
    setting: Setting,
    seed: int,
    arm: ArmName,
    rows: _Rows,
    base: RecipeStep | Source,
) -> list[RecipeStep]:
    """Add the stages of an arm's training and return them; the last one is the student."""
    trained: list[RecipeStep] = []
    phases = _phases(arm, setting)
    for number, phase in enumerate(phases, 1):
        last = number == len(phases)
        name = f"{setting.name}.{arm}.{seed}" + ("" if last else f".{number}")
        answers: dict[str, Ref] = {kind: rows.step(kind) for kind in phase.rows}
        tuned = _tuned(config, setting, seed, arm, phase)
        model = trained[-1] if trained else base
        trained.append(r.add(name, tune, tuned, base=model, answers=answers))
    return trained


def _tuned(
    config: QuickstartConfig, setting: Setting, seed: int, arm: ArmName, phase: PhaseBudget
) -> TuneConfig:
    changes: dict[str, object] = {"snapshots": _snapshots(config, arm)}
    tokens = None
    if phase.budget == "passes":
        changes["epochs"] = setting.passes
    else:
        tokens = round(phase.share * getattr(setting, phase.budget))
    if len(phase.rows) > 1:
        changes["shares"] = (1 - TEACHER_FRAC, TEACHER_FRAC)
    if phase.is_gentle:
        changes["optimizer"] = _gentle(setting)
    return tuning(setting, tokens=tokens, seed=seed).model_copy(update=changes)


def _gentle(setting: Setting) -> OptimizerConfig:
    """The optimiser of a phase that must not undo the one before."""
    optimizer = setting.optimizer
    muon = optimizer.muon_learning_rate
    changes = {
        "learning_rate": optimizer.learning_rate * TEACHER_RATE,
        "muon_learning_rate": muon and muon * TEACHER_RATE,
        "warmup_steps": TEACHER_WARMUP_STEPS,
    }
    return optimizer.model_copy(update=changes)


def _snapshots(config: QuickstartConfig, arm: ArmName) -> tuple[float, ...]:
    return config.snapshots if arm in ("explanations", "answers-tokens") else ()


def _asked(setting: Setting, message: str) -> MeasureConfig:
    most = PRETRAINED_TOKENS if isinstance(setting.student, Path) else NEW_TOKENS
    return MeasureConfig(system_message=message, sampling=Sampling(max_new_tokens=most))


def _measure(
    r: Recipe,
    config: QuickstartConfig,
    setting: Setting,
    name: str,
    arm: ArmName,
    student: RecipeStep | Source,
    items: RecipeStep,
    sealed: RecipeStep,
    share: float,
) -> RecipeStep:
    wanted = ANSWER if "answers" in arm else STEPS
    text = next(message.text for message in config.messages if message.id == wanted)
    asked = _asked(setting, text)
    folder = "" if share == 1.0 else f"snapshots/at-{share:g}"
    model = Use(Local(name=arm, subfolder=folder), student)
    suffix = "" if share == 1.0 else f".at-{share:g}"
    return r.add(
        f"{name}.scores{suffix}", measure, asked, items={"world": items}, model=model, sealed=sealed
    )


def _sealed(setting: Setting) -> SealConfig:
    """Declare the first comparison of the arms: explanations against equal tokens, if trained."""
    pairs = [(each.first, each.second) for each in comparisons(setting.arms)]
    return SealConfig(
        arms=pairs[0] if pairs else (setting.arms[0],) * 2, smallest_difference=OF_INTEREST
    )
