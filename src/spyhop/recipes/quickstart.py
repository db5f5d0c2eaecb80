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

from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from spyhop import world
from spyhop.augment import AnswerConfig, answer
from spyhop.collect import PairConfig, SubsetConfig, SystemMessage, draw_subset, pair
from spyhop.evaluate import SealConfig, measure, seal
from spyhop.models import Local
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.auditing import add_audits
from spyhop.recipes.experiment import (
    Experiment,
    ExperimentSetting,
    ReportInputs,
    asked_under,
    comparisons,
    starting_model,
    titles,
    tuning,
)
from spyhop.report import ArmsConfig, arms_page
from spyhop.schema import Config
from spyhop.text.tables import table
from spyhop.train import OptimizerConfig, tune
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


ANSWER, STEPS = "answer", "steps"
"""Ids of the messages under which bare answers are trained and explaining arms are measured."""
OF_INTEREST = 0.05
"""Smallest difference in accuracy that is of interest."""
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

    def text(self, name: str) -> str:
        """Return the text of a message."""
        return next(message.text for message in self.messages if message.id == name)


class PhaseBudget(NamedTuple):
    """One phase of an arm's training."""

    rows: tuple[str, ...]
    budget: TokenBudget
    share: float = 1.0
    is_gentle: bool = False


_TA, _TEACHER = "assisted", "taught"
_PHASES: dict[str, tuple[PhaseBudget, ...]] = {
    "base": (),
    "base-answers": (),
    "explanations": (PhaseBudget(("explained",), "tokens"),),
    "answers-tokens": (PhaseBudget(("answered",), "tokens"),),
    "answers-queries": (PhaseBudget(("answered",), "passes"),),
    "style": (PhaseBudget(("styled",), "tokens"),),
    "ta": (PhaseBudget((_TA,), "few_tokens"),),
    "teacher": (PhaseBudget((_TEACHER,), "few_tokens"),),
    "progressive": (
        PhaseBudget((_TA,), "few_tokens", 1 - TEACHER_FRAC),
        PhaseBudget((_TEACHER,), "few_tokens", TEACHER_FRAC, is_gentle=True),
    ),
    "mixed": (PhaseBudget((_TA, _TEACHER), "few_tokens"),),
}
_TEACHERS = {
    _TA: ("teaching assistant", world.TA),
    "styled": ("corrupted teacher", SolverConfig(corrupt=True)),
}
"""Who answers, if it is not the teacher; the seed draws its slips."""


CAVEATS: dict[str, str] = table("recipes/caveats.toml")["quickstart"]


def quickstart(config: QuickstartConfig, name: str = "quickstart") -> Recipe:
    """The Orca loop in an embedded world: explanations, bare answers, style, and teacher order."""
    r, page = Recipe(name), ReportInputs()
    declared: dict[str, RecipeStep] = {}
    for setting in config.settings:
        base = starting_model(r, setting, world.TokenizerConfig())
        drawn = world.ProblemsConfig(
            families=setting.families, num_rows=setting.num_items, steps=setting.steps
        )
        items = r.add(f"{setting.name}.items", world.draw_items, drawn)
        sealed = r.add(f"{setting.name}.sealed", seal, _sealed(setting), items={"world": items})
        declared[setting.name] = sealed
        for seed in config.seeds:
            run = Experiment(r, setting, seed, base, items, page, {"sealed": sealed})
            rows = _Rows(run, setting, config.messages)
            for arm in setting.arms:
                snapshots = config.snapshots if arm in ("explanations", "answers-tokens") else ()
                trained = _train(run, setting, arm, rows, snapshots)
                message = config.text(ANSWER if "answers" in arm else STEPS)
                for share in (*snapshots, 1.0):
                    run.measure(arm, trained, message, share)
            page.answers = page.answers or {"teacher": rows.step("explained")}
    audits = _audits(r, config, page)
    is_pretrained = all(isinstance(each.student, Path) for each in config.settings)
    arms = ArmsConfig(
        title=r.name,
        runs=page.runs,
        comparisons=comparisons(get_args(ArmName)),
        arm_titles=titles(get_args(ArmName)),
        caveats=(
            CAVEATS["pretrained" if is_pretrained else "caveat"],
            CAVEATS["shared" if len(config.seeds) > 1 else "one_seed"],
        ),
    )
    r.add(
        "report", arms_page, arms, scores=page.scores, students=page.students,
        answers=page.answers, audits=audits, sealed=declared,
    )  # fmt: skip
    return r


def _sealed(setting: Setting) -> SealConfig:
    """Declare the first comparison of the setting's arms."""
    pairs = [(each.first, each.second) for each in comparisons(setting.arms)]
    arms = pairs[0] if pairs else (setting.arms[0],) * 2
    return SealConfig(arms=arms, smallest_difference=OF_INTEREST)


def _audits(r: Recipe, config: QuickstartConfig, page: ReportInputs) -> dict[str, Ref]:
    """Add the imitation audit of the first setting's first student that reads explanations.

    Its judges are scripted: one rewards style alone, one checks the answers.
    """
    setting = config.settings[0]
    student = page.scores.get(f"{setting.name}.explanations.{config.seeds[0]}.scores")
    if student is None:
        return {}
    drawn = world.ProblemsConfig(
        families=setting.families,
        num_rows=min(AUDITED_ITEMS, setting.num_items),
        steps=setting.steps,
    )
    items = {"world": r.add("audit.problems", world.draw_items, drawn)}
    start = Source(setting.student) if isinstance(setting.student, Path) else None
    base = Use(Local(name="base"), start or r.step(f"{setting.name}.base"))
    asked = asked_under(config.text(STEPS), setting)
    measured = r.add("audit.base", measure, asked, items=items, model=base)
    judges = [
        Use(world.Judge(name=f"that rewards {each}", rules=world.JudgeRules(rewards=each)))
        for each in get_args(world.Rewarded)
    ]
    return add_audits(r, judges, items, measured, student, page.answers)


class _Rows:
    """The answers that arms of one seed are trained on, added to the recipe when first used."""

    def __init__(
        self, run: Experiment, setting: Setting, messages: tuple[WorldMessage, ...]
    ) -> None:
        self._run, self._setting, self._messages = run, setting, messages
        self._steps: dict[str, RecipeStep] = {}
        drawn = world.ProblemsConfig(
            families=setting.families,
            num_rows=setting.num_queries,
            steps=setting.steps,
            seed=run.seed,
        )
        self._queries = run.step("queries", world.draw_queries, drawn)

    def step(self, kind: str) -> RecipeStep:
        """Return the answers of one kind."""
        if kind not in self._steps:
            prompts = self._prompts("bare" if kind == "answered" else "explaining")
            if kind == _TEACHER:
                size = SubsetConfig(num_rows=self._setting.teacher_queries, seed=self._run.seed)
                prompts = self._run.step("few", draw_subset, size, prompts=prompts)
            who = world.Solver()
            if kind in _TEACHERS:
                name, solver = _TEACHERS[kind]
                seeded = solver.model_copy(update={"seed": self._run.seed})
                who = world.Solver(name=name, solver=seeded)
            self._steps[kind] = self._run.step(
                kind, answer, AnswerConfig(), prompts=prompts, teacher=Use(who)
            )
        return self._steps[kind]

    def _prompts(self, kind: str) -> RecipeStep:
        if kind not in self._steps:
            shares = {m.id: m.share for m in self._messages if m.share > 0}
            shares = {ANSWER: 1.0} if kind == "bare" else shares
            messages = tuple(
                SystemMessage(id=m.id, text=m.text) for m in self._messages if m.id in shares
            )
            pairing = PairConfig(messages=messages, shares={"*": shares}, seed=self._run.seed)
            self._steps[kind] = self._run.step(kind, pair, pairing, queries=self._queries)
        return self._steps[kind]


def _train(
    run: Experiment, setting: Setting, arm: ArmName, rows: _Rows, snapshots: tuple[float, ...]
) -> list[RecipeStep]:
    """Add the phases of an arm's training and return them; the last one is the student."""
    trained: list[RecipeStep] = []
    for number, phase in enumerate(_PHASES[arm], 1):
        changes: dict[str, object] = {"snapshots": snapshots}
        tokens = None
        if phase.budget == "passes":
            changes["epochs"] = setting.passes
        else:
            tokens = round(phase.share * getattr(setting, phase.budget))
        if len(phase.rows) > 1:
            changes["shares"] = (1 - TEACHER_FRAC, TEACHER_FRAC)
        if phase.is_gentle:
            changes["optimizer"] = _gentle(setting.optimizer)
        name = f"{setting.name}.{arm}.{run.seed}"
        trained.append(
            run.r.add(
                name if number == len(_PHASES[arm]) else f"{name}.{number}",
                tune,
                tuning(setting, tokens=tokens, seed=run.seed).model_copy(update=changes),
                base=trained[-1] if trained else run.base,
                answers={kind: rows.step(kind) for kind in phase.rows},
            )
        )
    return trained


def _gentle(optimizer: OptimizerConfig) -> OptimizerConfig:
    """The optimiser of a phase that must not undo the one before."""
    muon = optimizer.muon_learning_rate
    changes = {
        "learning_rate": optimizer.learning_rate and optimizer.learning_rate * TEACHER_RATE,
        "muon_learning_rate": muon and muon * TEACHER_RATE,
        "warmup_steps": TEACHER_WARMUP_STEPS,
    }
    return optimizer.model_copy(update=changes)
