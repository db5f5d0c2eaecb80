"""The Orca loop in miniature, with the controls that the paper lacks.

Every arm starts from the same model and differs in what it reads:

    explanations      the teacher's answers under system messages that ask for reasons
    answers-tokens    the bare answers to the same queries, for as many tokens
    answers-queries   the bare answers to the same queries, for as many passes
    style             explanations of the same form, but with random steps (and the right answer)
    ta                the teaching assistant's explanations: many, often wrong
    teacher           the teacher's explanations of a few queries
    progressive       the assistant's first, then the teacher's (Orca's order)
    mixed             the same rows as progressive, shuffled
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from spyhop import world
from spyhop.augment import AnswerConfig, answer
from spyhop.collect import PairConfig, SubsetConfig, SystemMessage, draw_subset, pair
from spyhop.evaluate import MeasureConfig, measure
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Node, Recipe, Ref, Use
from spyhop.report import ArmPair, ArmRun, ArmsConfig, arms_page
from spyhop.schema import Config
from spyhop.stage import Stage
from spyhop.train import NewModelConfig, OptimizerConfig, TuneConfig, new_model, tune
from spyhop.world import SolverConfig

ArmName = Literal[
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


class WorldMessage(SystemMessage):
    """A system message of the embedded world, and its weight among the explained queries."""

    share: float = Field(ge=0)


class Setting(Config):
    """One set of families, the student that meets them, and the budgets."""

    name: str
    families: tuple[world.FamilyName, ...] = Field(min_length=1)
    arms: tuple[ArmName, ...] = Field(min_length=1)
    steps: world.Steps = (3, 6)
    num_queries: int = Field(8000, gt=0)
    num_items: int = Field(400, gt=0)
    """Held-out test problems, the same for every arm and seed."""
    tokens: int = Field(1_000_000, gt=0)
    """Budget of the explanations arm and its controls."""
    passes: float = Field(1.25, gt=0)
    """Passes over the queries that `tokens` amounts to with explanations."""
    few_tokens: int = Field(500_000, gt=0)
    """Budget of the arms that compare assistant and teacher."""
    teacher_queries: int = Field(100, gt=0)
    """Queries that the teacher explains in these arms; the assistant explains all."""
    teacher_frac: float = Field(0.25, gt=0, lt=1)
    """Share of the teacher's rows in the budgets of `progressive` and `mixed`."""
    teacher_rate: float = Field(0.3, gt=0)
    """Learning rates of the second stage of `progressive`, as a share of the first's."""
    teacher_warmup_steps: int = Field(30, ge=0)
    student: NewModelConfig
    copy_rows: int = Field(9000, gt=0)
    copy_tokens: int = Field(600_000, gt=0)
    """The starting model's own training: copying lists of random words."""
    copy_batch_tokens: int = Field(1024, gt=0)
    optimizer: OptimizerConfig
    batch_tokens: int = Field(1024, gt=0)


class QuickstartConfig(Config):
    """Settings of the `quickstart` recipe."""

    name: str = "quickstart"
    settings: tuple[Setting, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each seed draws its own queries, answers and order of training."""
    messages: tuple[WorldMessage, ...]
    """Explained queries get one of them by share; `answer_message` belongs to the bare answers."""
    answer_message: str = "answer"
    """Id of the message under which bare answers are trained and measured."""
    explain_message: str = "steps"
    """Id of the message under which explaining arms are measured."""
    assistant: SolverConfig = SolverConfig(misconceptions=True, slip_rate=0.08)
    snapshots: tuple[float, ...] = ()
    """Shares of the training after which the first two arms are measured for a learning curve."""

    @model_validator(mode="after")
    def _fits_together(self) -> "QuickstartConfig":
        known = [message.id for message in self.messages]
        for name in (self.answer_message, self.explain_message):
            if name not in known:
                raise ValueError(f"no system message has the id {name!r}; known: {known}")
        if not sum(message.share for message in self.messages):
            raise ValueError("the shares of all system messages are 0")
        if not all(0 < share < 1 for share in self.snapshots):
            raise ValueError("snapshots are shares of the training, above 0 and below 1")
        return self


@dataclass(frozen=True, slots=True)
class Phase:
    """One stage of an arm's training."""

    rows: tuple[str, ...]
    budget: TokenBudget
    share: float = 1.0
    is_gentle: bool = False


_TA, _TEACHER = "assisted", "taught"


def _phases(arm: ArmName, setting: Setting) -> tuple[Phase, ...]:
    frac = setting.teacher_frac
    table: dict[ArmName, tuple[Phase, ...]] = {
        "explanations": (Phase(("explained",), "tokens"),),
        "answers-tokens": (Phase(("answered",), "tokens"),),
        "answers-queries": (Phase(("answered",), "passes"),),
        "style": (Phase(("styled",), "tokens"),),
        "ta": (Phase((_TA,), "few_tokens"),),
        "teacher": (Phase((_TEACHER,), "few_tokens"),),
        "progressive": (
            Phase((_TA,), "few_tokens", 1 - frac),
            Phase((_TEACHER,), "few_tokens", frac, is_gentle=True),
        ),
        "mixed": (Phase((_TA, _TEACHER), "few_tokens"),),
    }
    return table[arm]


COMPARISONS = (
    ArmPair(first="answers-tokens", second="explanations"),
    ArmPair(first="answers-queries", second="explanations"),
    ArmPair(first="style", second="explanations"),
    ArmPair(first="answers-tokens", second="style"),
    ArmPair(first="ta", second="progressive"),
    ArmPair(first="teacher", second="progressive"),
    ArmPair(first="mixed", second="progressive"),
)

TITLES = {
    "explanations": "explanations",
    "answers-tokens": "answers only, equal tokens",
    "answers-queries": "answers only, equal queries",
    "style": "style only (random steps)",
    "ta": "assistant only",
    "teacher": "teacher only (few)",
    "progressive": "assistant, then teacher",
    "mixed": "assistant and teacher, mixed",
}
CAVEAT = (
    "The tasks are generated and small, the students are tiny and start from a stage of copying "
    "that stands in for pre-training. They know nothing else, and these figures say nothing about "
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


def quickstart(config: QuickstartConfig) -> Recipe:
    """The Orca loop in an embedded world: explanations, bare answers, style, and teacher order."""
    r = Recipe(config.name)
    runs: list[ArmRun] = []
    scores: list[Ref] = []
    students: list[Ref] = []
    stages: list[tuple[int, ...]] = []
    samples: list[Ref] = []
    for setting in config.settings:
        base = _starting_model(r, setting)
        drawn = world.ProblemsConfig(
            families=setting.families, num_rows=setting.num_items, steps=setting.steps
        )
        items = r.add(f"{setting.name}.items", world.draw_items, drawn)
        for seed in config.seeds:
            rows = _Rows(r, config, setting, seed)
            for arm in setting.arms:
                trained = _train(r, config, setting, seed, arm, rows, base)
                places = tuple(range(len(students), len(students) + len(trained)))
                students += trained
                for share in (*_snapshots(config, arm), 1.0):
                    name = f"{setting.name}.{arm}.{seed}"
                    runs.append(ArmRun(setting=setting.name, arm=arm, seed=seed, share=share))
                    stages.append(places)
                    scores.append(_measure(r, config, name, arm, trained[-1], items, share))
            samples = samples or [rows.node("explained")]
    page = ArmsConfig(
        title=config.name,
        runs=tuple(runs),
        stages=tuple(stages),
        comparisons=COMPARISONS,
        arm_titles=TITLES,
        caveats=(CAVEAT, SHARED if len(config.seeds) > 1 else ONE_SEED),
    )
    r.add("report", arms_page, page, scores=scores, students=students, answers=samples)
    return r


def _starting_model(r: Recipe, setting: Setting) -> Node:
    """A small model that can copy and nothing else; every arm starts from it."""
    name = setting.name
    words = r.add(f"{name}.tokenizer", world.train_tokenizer, world.TokenizerConfig())
    fresh = r.add(f"{name}.new", new_model, setting.student, tokenizer=words)
    copies = r.add(
        f"{name}.copies", world.draw_copies, world.CopiesConfig(num_rows=setting.copy_rows)
    )
    learned = _tune_config(setting, seed=0, tokens=setting.copy_tokens)
    learned = learned.model_copy(update={"batch_tokens": setting.copy_batch_tokens})
    return r.add(f"{name}.base", tune, learned, base=fresh, answers=[copies])


class _Rows:
    """The answers that arms of one seed are trained on, added to the recipe when first used."""

    def __init__(self, r: Recipe, config: QuickstartConfig, setting: Setting, seed: int) -> None:
        self._r, self._config, self._setting, self._seed = r, config, setting, seed
        self._nodes: dict[str, Node] = {}
        drawn = world.ProblemsConfig(
            families=setting.families, num_rows=setting.num_queries, steps=setting.steps, seed=seed
        )
        self._queries = self._add("queries", world.draw_queries, drawn)

    def node(self, kind: str) -> Node:
        """Return the answers of one kind."""
        if kind not in self._nodes:
            prompts = self._prompts("bare" if kind == "answered" else "explaining")
            if kind == _TEACHER:
                size = SubsetConfig(num_rows=self._setting.teacher_queries, seed=self._seed)
                prompts = self._add("few", draw_subset, size, prompts=prompts)
            teacher = Use(self._teacher(kind))
            asked = AnswerConfig(max_error_frac=0.0)
            self._nodes[kind] = self._add(kind, answer, asked, prompts=prompts, teacher=teacher)
        return self._nodes[kind]

    def _prompts(self, kind: str) -> Node:
        if kind not in self._nodes:
            chosen = {m.id: m.share for m in self._config.messages if m.share > 0}
            if kind == "bare":
                chosen = {self._config.answer_message: 1.0}
            messages = tuple(
                SystemMessage(id=m.id, text=m.text) for m in self._config.messages if m.id in chosen
            )
            pairing = PairConfig(messages=messages, shares={"*": chosen}, seed=self._seed)
            self._nodes[kind] = self._add(kind, pair, pairing, queries=self._queries)
        return self._nodes[kind]

    def _teacher(self, kind: str) -> world.Solver:
        if kind == _TA:
            seeded = self._config.assistant.model_copy(update={"seed": self._seed})
            return world.Solver(name="teaching assistant", solver=seeded)
        if kind == "styled":
            corrupt = SolverConfig(corrupt=True, seed=self._seed)
            return world.Solver(name="corrupted teacher", solver=corrupt)
        return world.Solver()

    def _add(self, kind: str, stage: Stage, config: Config, **inputs: Ref) -> Node:
        return self._r.add(f"{self._setting.name}.{kind}.{self._seed}", stage, config, **inputs)


def _train(
    r: Recipe,
    config: QuickstartConfig,
    setting: Setting,
    seed: int,
    arm: ArmName,
    rows: _Rows,
    base: Node,
) -> list[Node]:
    """Add the stages of an arm's training and return them; the last one is the student."""
    trained: list[Node] = []
    phases = _phases(arm, setting)
    for number, phase in enumerate(phases, 1):
        last = number == len(phases)
        name = f"{setting.name}.{arm}.{seed}" + ("" if last else f".{number}")
        answers: list[Ref] = [rows.node(kind) for kind in phase.rows]
        tuned = _tune_config(
            setting,
            seed=seed,
            tokens=None
            if phase.budget == "passes"
            else round(phase.share * getattr(setting, phase.budget)),
            shares=(1 - setting.teacher_frac, setting.teacher_frac) if len(answers) > 1 else None,
            is_gentle=phase.is_gentle,
            snapshots=_snapshots(config, arm),
        )
        model = trained[-1] if trained else base
        trained.append(r.add(name, tune, tuned, base=model, answers=answers))
    return trained


def _tune_config(
    setting: Setting,
    *,
    seed: int,
    tokens: int | None,
    shares: tuple[float, float] | None = None,
    is_gentle: bool = False,
    snapshots: tuple[float, ...] = (),
) -> TuneConfig:
    optimizer = setting.optimizer
    if is_gentle:
        optimizer = _gentle(setting)
    return TuneConfig(
        tokens=tokens,
        epochs=setting.passes if tokens is None else None,
        shares=shares,
        batch_tokens=setting.batch_tokens,
        max_tokens=512,
        optimizer=optimizer,
        snapshots=snapshots,
        seed=seed,
    )


def _gentle(setting: Setting) -> OptimizerConfig:
    """The optimiser of a stage that must not undo the one before."""
    optimizer, rate = setting.optimizer, setting.teacher_rate
    muon = optimizer.muon_learning_rate
    changes = {
        "learning_rate": optimizer.learning_rate * rate,
        "muon_learning_rate": muon and muon * rate,
        "warmup_steps": setting.teacher_warmup_steps,
    }
    return optimizer.model_copy(update=changes)


def _snapshots(config: QuickstartConfig, arm: ArmName) -> tuple[float, ...]:
    return config.snapshots if arm in ("explanations", "answers-tokens") else ()


def _measure(
    r: Recipe,
    config: QuickstartConfig,
    name: str,
    arm: ArmName,
    student: Node,
    items: Node,
    share: float,
) -> Node:
    wanted = config.answer_message if arm.startswith("answers") else config.explain_message
    text = next(message.text for message in config.messages if message.id == wanted)
    asked = MeasureConfig(system_message=text, sampling=Sampling(max_new_tokens=256))
    folder = "" if share == 1.0 else f"snapshots/at-{share:g}"
    model = Use(Local(name=arm, subfolder=folder), student)
    suffix = "" if share == 1.0 else f".at-{share:g}"
    return r.add(f"{name}.scores{suffix}", measure, asked, items=[items], model=model)
