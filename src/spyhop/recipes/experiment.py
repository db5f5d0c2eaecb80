"""Shared by the quick starts: the table of arms, the starting model, a student's training."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, cast, get_args

from pydantic import Field

from spyhop import world
from spyhop.augment import Keep
from spyhop.evaluate import MeasureConfig, measure
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.report import ArmPair, ArmRun, ArmsConfig, CuratedSet, arms_page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.stage import Stage
from spyhop.train import NewModelConfig, OptimizerConfig, TuneConfig, new_model, tune

COPY_BATCH_TOKENS = 1024
COPIES = 15
"""Rows to copy for 1,000 training tokens."""
MAX_TOKENS = 512
NEW_TOKENS, PRETRAINED_TOKENS = 256, 128
"""Longest response of a new student, and of a pretrained one, whose base writes without end: twice
the teacher's longest explanation of four steps."""


ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "base": ("base, asked to explain", ()),
    "base-answers": ("base, asked for the answer", ()),
    "explanations": ("explanations", ("answers-tokens", "answers-queries", "style", "base")),
    "answers-tokens": ("answers only, equal tokens", ("base-answers",)),
    "answers-queries": ("answers only, equal queries", ()),
    "style": ("style only (random steps)", ("answers-tokens",)),
    "ta": ("assistant only", ()),
    "teacher": ("teacher only (few)", ()),
    "progressive": ("assistant, then teacher", ("ta", "teacher", "mixed")),
    "mixed": ("assistant and teacher, mixed", ()),
    "on-policy": ("own answers, corrected by the teacher", ("off-policy", "off-policy-3x")),
    "off-policy": ("the teacher's answers, as many of its tokens", ()),
    "off-policy-3x": ("the teacher's answers, three times its tokens", ("off-policy",)),
    "divergence": ("own answers, scored by a teacher model", ("imitation", "imitation-3x")),
    "imitation": ("the teacher model's answers to as many queries", ()),
    "imitation-3x": ("the teacher model's answers to three times as many", ("imitation",)),
    "pairs": ("pairs of a right and a wrong answer (DPO)", ("chosen", "start")),
    "chosen": ("the right answers of these pairs", ("start",)),
    "start": ("what both start from", ()),
    "first": ("few queries", ()),
    "failures": ("as many more where it fails", ("at-random", "first")),
    "at-random": ("as many more at random", ("first",)),
    "curated": ("seed + curated", ("uncurated", "random", "seed", "seed-own")),
    "seed": ("seed pairs only", ()),
    "seed-own": ("seed pairs only, asked as trained", ()),
    "uncurated": ("seed + all documents", ("seed",)),
    "random": ("seed + about as many at random", ()),
    "round-2": ("seed + curated in round 2", ("curated",)),
}
"""Arms of the quick starts: title, and the arms that it is compared with."""
KEPT: dict[Keep, str] = {
    "all": "all of them",
    "verified": "the verified ones",
    "majority": "those of the majority",
    "shortest": "the shortest verified one",
    "likely": "the most likely one",
}
"""What an arm learns from, of several answers to a query."""


class Pick(NamedTuple):
    """An arm that learns from several answers to a query."""

    num: int
    """Answers to a query."""
    keep: Keep
    """Which of them it learns from."""
    is_equal_usd: bool
    """Whether it has 1/num of the queries, so that its teacher costs as much as one answer each."""


_PICK = re.compile(rf"([1-9]|1[0-6])-({'|'.join(get_args(Keep))})(-usd)?")


def pick_of(arm: str) -> Pick | None:
    """Return what an arm such as `4-verified` or `4-verified-usd` learns from."""
    found = _PICK.fullmatch(arm)
    return Pick(int(found[1]), cast(Keep, found[2]), bool(found[3])) if found else None


def title(arm: str) -> str:
    """Return how an arm is called in the page."""
    if (pick := pick_of(arm)) is None:
        return ARMS[arm][0]
    answers = f"{pick.num} answer{'s' * (pick.num > 1)}, {KEPT[pick.keep]}"
    return answers + ", equal dollars" * pick.is_equal_usd


def comparisons(names: Iterable[str]) -> tuple[ArmPair, ...]:
    """Return the comparisons of arms; the difference is second minus first."""
    known = list(dict.fromkeys(names))
    against = {arm: pairs for arm, (_, pairs) in ARMS.items()}
    for name in known:
        if pick := pick_of(name):
            end = "-usd" * pick.is_equal_usd
            against[name] = (f"{pick.num}-all{end}", "1-all", f"1-{pick.keep}")
    return tuple(
        ArmPair(first=first, second=second)
        for second, firsts in against.items()
        for first in dict.fromkeys(firsts)
        if first != second and {first, second} <= set(known)
    )


class ExperimentSetting(Config):
    """A student, its test problems and its budgets."""

    name: str
    """Name of the setting in the report."""
    families: tuple[world.FamilyName, ...] = Field(world.CORE, min_length=1)
    """Families of problems."""
    steps: world.Steps = (3, 6)
    """Fewest and most steps of a problem."""
    num_items: int = Field(400, gt=0)
    """Held-out test problems, the same for every arm and seed."""
    student: NewModelConfig | InputPath
    """Shape of a new model, or folder of a pretrained one."""
    copy_tokens: int = Field(600_000, gt=0)
    """Training tokens of a new student's starting model, which learns to copy random words."""
    optimizer: OptimizerConfig
    batch_tokens: int = Field(1024, gt=0)
    """Tokens of a batch in training."""

    def problems(self, num_rows: int, seed: int = 0) -> world.ProblemsConfig:
        """Return the settings of a draw of problems."""
        return world.ProblemsConfig(
            families=self.families, num_rows=num_rows, steps=self.steps, seed=seed
        )


SettingType = TypeVar("SettingType", bound=ExperimentSetting)


@dataclass(slots=True)
class Page:
    """Measured arms and other inputs of a report, by the names of their steps."""

    runs: dict[str, ArmRun] = field(default_factory=dict)
    scores: dict[str, RecipeStep] = field(default_factory=dict)
    students: dict[str, Ref] = field(default_factory=dict)
    answers: dict[str, Ref] = field(default_factory=dict)
    picked: dict[str, Ref] = field(default_factory=dict)
    """Answers that were chosen or corrected, where arms learn from some."""
    rounds: dict[str, Ref] = field(default_factory=dict)
    """Prompts that rounds draw, by setting and seed; those of controls end in `-random`."""
    promotions: dict[str, Ref] = field(default_factory=dict)

    def add(
        self,
        r: Recipe,
        names: Sequence[str],
        caveats: tuple[str, ...],
        curated: dict[str, CuratedSet] | None = None,
        **more: Mapping[str, Ref],
    ) -> None:
        """Add the report: these arms, their comparisons, and further inputs."""
        arms = ArmsConfig(
            title=r.name, runs=self.runs, curated=curated or {}, comparisons=comparisons(names),
            arm_titles={name: title(name) for name in names}, caveats=caveats,
        )  # fmt: skip
        some = {"picked": self.picked, "rounds": self.rounds, "promotions": self.promotions}
        r.add(
            "report", arms_page, arms, scores=self.scores, students=self.students,
            answers=self.answers, **{name: each for name, each in some.items() if each}, **more,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Experiment(Generic[SettingType]):
    """One seed of one setting: adds its steps, trainings and measurements to the recipe."""

    r: Recipe
    setting: SettingType
    seed: int
    base: RecipeStep | Source
    items: RecipeStep
    page: Page
    declared: Mapping[str, Ref] = field(default_factory=dict)
    """Declaration that scores follow, if any, as the input `sealed`."""

    def step(
        self, kind: str, stage: Stage, config: Config, **inputs: Ref | Mapping[str, Ref]
    ) -> RecipeStep:
        """Add the step `<setting>.<kind>.<seed>`."""
        return self.r.add(f"{self.setting.name}.{kind}.{self.seed}", stage, config, **inputs)

    def find(self, kind: str) -> RecipeStep | None:
        """Return the step `<setting>.<kind>.<seed>`, if there is one."""
        name = f"{self.setting.name}.{kind}.{self.seed}"
        return next((step for step in self.r.steps if step.name == name), None)

    def measure(
        self, arm: str, phases: Sequence[RecipeStep], message: str, share: float = 1.0
    ) -> RecipeStep:
        """Ask the student, or its snapshot after a share of the training, the items, once."""
        name, folder = f"{self.setting.name}.{arm}.{self.seed}.scores", ""
        if share < 1:
            name, folder = f"{name}.at-{share:g}", f"snapshots/at-{share:g}"
        model = Use(Local(name=arm, subfolder=folder), phases[-1] if phases else self.base)
        page, asked = self.page, asked_under(message, self.setting)
        if name in page.scores:
            return page.scores[name]
        scores = page.scores[name] = self.r.add(
            name, measure, asked, items={"world": self.items}, model=model, **self.declared
        )
        page.students |= {phase.name: phase for phase in phases}
        page.runs[name] = ArmRun(
            setting=self.setting.name, arm=arm, seed=self.seed, share=share,
            phases=tuple(phase.name for phase in phases),
        )  # fmt: skip
        return scores


def asked_under(message: str, setting: ExperimentSetting) -> MeasureConfig:
    """Return how students are asked, under a system message."""
    most = PRETRAINED_TOKENS if isinstance(setting.student, Path) else NEW_TOKENS
    return MeasureConfig(system_message=message, sampling=Sampling(max_new_tokens=most))


def starting_model(
    r: Recipe, setting: ExperimentSetting, words: world.TokenizerConfig
) -> RecipeStep | Source:
    """Return the model that every arm starts from: a new one is small and can only copy."""
    if isinstance(setting.student, Path):
        return Source(setting.student)
    name = setting.name
    tokenizer = r.add(f"{name}.tokenizer", world.train_tokenizer, words)
    fresh = r.add(f"{name}.new", new_model, setting.student, tokenizer=tokenizer)
    config = world.CopiesConfig(num_rows=max(1, setting.copy_tokens * COPIES // 1000))
    copies = r.add(f"{name}.copies", world.draw_copies, config)
    learned = tuning(setting, tokens=setting.copy_tokens, seed=0)
    learned = learned.model_copy(update={"batch_tokens": COPY_BATCH_TOKENS})
    return r.add(f"{name}.base", tune, learned, base=fresh, answers={"copies": copies})


def tuning(setting: ExperimentSetting, *, tokens: int | None, seed: int) -> TuneConfig:
    """Return the settings of a student's training; without `tokens` one pass over its rows."""
    return TuneConfig(
        tokens=tokens,
        epochs=1.0 if tokens is None else None,
        batch_tokens=setting.batch_tokens,
        max_tokens=MAX_TOKENS,
        optimizer=setting.optimizer,
        precision="bfloat16" if isinstance(setting.student, Path) else "float32",
        seed=seed,
    )
