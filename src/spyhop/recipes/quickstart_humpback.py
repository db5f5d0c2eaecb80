"""The Humpback loop in miniature, with the controls that the paper lacks.

Every arm starts from the same model, reads as many tokens, and differs in what it reads:

    seed        the seed pairs
    seed-own    the same student, asked under the system message that it was trained with
    uncurated   the seed pairs, and every document with the instruction written for it
    random      the seed pairs, and about as many of these, drawn at random, as curation keeps
    curated     the seed pairs, and those that M0 (the student of `seed`) rates 4 and better
    round-2     the seed pairs, and those that M1 (the student of `curated`) rates 4 and better

Seed pairs count twice in every mixture. Nothing but the page at the end looks at what kind a
document is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import Field

from spyhop import world
from spyhop.augment import (
    BacktranslateConfig,
    ForwardConfig,
    ReversedConfig,
    backtranslate,
    format_pairs,
    reverse_pairs,
)
from spyhop.curate import (
    A4,
    GateConfig,
    KeepConfig,
    LikelihoodConfig,
    gate,
    keep,
    rate_by_likelihood,
)
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Use
from spyhop.recipes.experiment import (
    Experiment,
    ExperimentSetting,
    ReportInputs,
    comparisons,
    starting_model,
    titles,
    tuning,
)
from spyhop.report import ArmsConfig, CuratedSet, arms_page
from spyhop.schema import Config
from spyhop.text.tables import table
from spyhop.train import tune

ArmName = Literal["seed", "seed-own", "uncurated", "random", "curated", "round-2"]
MOST_FRAC = 0.4
"""Share of the documents that is rated 4 and better: ratings are fifths."""
REPEATS = 2
"""Copies of the seed pairs in a mixture."""


TAGGED = ForwardConfig()
"""System messages that distinguish seed pairs from web pairs; students are prompted with both."""
ASKED = f"{TAGGED.seed_message} {TAGGED.web_message}"
WRITTEN = BacktranslateConfig(
    asked=ReversedConfig(prompt="{response}", system_message="Write the question."),
    sampling=Sampling(max_new_tokens=128),
)
"""How the backward model is trained and asked for instructions: greedily, unlike the paper, for
at this size a quarter of the instructions drawn at temperature 0.7 miss their document."""
ITEMS_SEED = 1
"""Draws the test problems. Settings were chosen on those of seed 0."""


class HumpbackSetting(ExperimentSetting):
    """Documents, the student that learns from them, and the budgets."""

    arms: tuple[ArmName, ...] = Field(min_length=1)
    """Students to train and compare."""
    kinds: dict[world.DocumentKind, float]
    """Share of each kind of document."""
    families: tuple[world.FamilyName, ...] = world.CORE
    """Families of problems."""
    num_pairs: int = Field(300, gt=0)
    """Seed pairs."""
    num_documents: int = Field(2500, gt=0)
    """Documents without an instruction."""
    tokens: int = Field(700_000, gt=0)
    """Budget of every arm."""
    backward_tokens: int = Field(200_000, gt=0)
    """Training tokens of the backward model."""
    batch_tokens: int = Field(512, gt=0)
    """Tokens of a batch in training."""


class QuickstartHumpbackConfig(Config):
    """Settings of the `quickstart_humpback` recipe."""

    settings: tuple[HumpbackSetting, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((5, 6, 7), min_length=1)
    """Each seed draws its own seed pairs, documents, instructions and order of training."""
    written: BacktranslateConfig = WRITTEN
    """How the backward model is trained and asked for instructions."""


TEXTS = (
    TAGGED.seed_message,
    TAGGED.web_message,
    WRITTEN.asked.system_message,
    " | ".join(world.MENU),
)
"""Texts that the tokenizer must know as whole words."""
LIMITS = tuple(table("recipes/caveats.toml")["quickstart_humpback"]["limits"])


def quickstart_humpback(
    config: QuickstartHumpbackConfig, name: str = "quickstart_humpback"
) -> Recipe:
    """The Humpback loop in an embedded world: documents with and without curation, two rounds."""
    r, page = Recipe(name), CurationInputs()
    for setting in config.settings:
        base = starting_model(r, setting, world.TokenizerConfig(texts=TEXTS))
        drawn = world.ProblemsConfig(
            families=setting.families,
            num_rows=setting.num_items,
            steps=setting.steps,
            seed=ITEMS_SEED,
        )
        items = r.add(f"{setting.name}.items", world.draw_items, drawn)
        for seed in config.seeds:
            _Loop(Experiment(r, setting, seed, base, items, page), setting, page).add(
                config.written
            )
    curated = ArmsConfig(
        title=r.name,
        runs=page.runs,
        curated=page.curated,
        comparisons=comparisons(get_args(ArmName)),
        arm_titles=titles(get_args(ArmName)),
        caveats=LIMITS,
    )
    r.add(
        "report", arms_page, curated, scores=page.scores, students=page.students,
        answers=page.answers, documents=page.documents, rated=page.rated, kept=page.kept,
    )  # fmt: skip
    return r


@dataclass(slots=True)
class CurationInputs(ReportInputs):
    """Inputs of the report, by name."""

    curated: dict[str, CuratedSet] = field(default_factory=dict)
    documents: dict[str, Ref] = field(default_factory=dict)
    rated: dict[str, Ref] = field(default_factory=dict)
    kept: dict[str, Ref] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Loop:
    """One seed of one setting."""

    run: Experiment
    setting: HumpbackSetting
    page: CurationInputs

    def add(self, written: BacktranslateConfig) -> None:
        """Add the loop: write, rate, keep, train, rate again."""
        run, setting, arms = self.run, self.setting, self.setting.arms
        drawn = {"families": setting.families, "steps": setting.steps, "seed": run.seed}
        chosen = world.ProblemsConfig(num_rows=setting.num_pairs, **drawn)
        seeds = run.step("seeds", world.draw_pairs, chosen)
        found = world.DocumentsConfig(num_rows=setting.num_documents, shares=setting.kinds, **drawn)
        documents = run.step("documents", world.draw_documents, found)
        pairs = self._written(written, seeds, documents)
        learned = run.step("learned", format_pairs, TAGGED, pairs={"seeds": seeds})
        m0 = self._student("seed", {"seeds": learned})
        for arm, message in (("seed", ASKED), ("seed-own", TAGGED.seed_message)):
            if arm in arms:
                run.measure(arm, [m0], message)
        if "uncurated" in arms:
            self._arm("uncurated", learned, pairs)
        if "random" in arms:
            quota = KeepConfig(
                num_rows=round(MOST_FRAC * setting.num_documents), take="random", seed=run.seed
            )
            self._arm("random", learned, run.step("drawn", keep, quota, rated=pairs))
        kept = self._curated(1, documents, pairs, m0)
        m1 = self._arm("curated", learned, kept)
        if "round-2" in arms:
            self._arm("round-2", learned, self._curated(2, documents, pairs, m1))

    def _written(
        self, written: BacktranslateConfig, seeds: RecipeStep, documents: RecipeStep
    ) -> RecipeStep:
        """Add the backward model and the instructions that it writes."""
        run = self.run
        turned = run.step("turned", reverse_pairs, written.asked, pairs={"seeds": seeds})
        trained = tuning(self.setting, tokens=self.setting.backward_tokens, seed=run.seed)
        backward = run.step("backward", tune, trained, base=run.base, answers={"seeds": turned})
        sampling = written.sampling.model_copy(update={"seed": run.seed})
        asked = written.model_copy(update={"sampling": sampling})
        model = Use(Local(name="backward model"), backward)
        return run.step("written", backtranslate, asked, segments=documents, model=model)

    def _curated(
        self, number: int, documents: RecipeStep, pairs: RecipeStep, judge: RecipeStep
    ) -> RecipeStep:
        """Add a round of rating, and return the pairs that are kept."""
        run, page = self.run, self.page
        likelihood = LikelihoodConfig(system_message=TAGGED.seed_message)
        use = Use(Local(name=f"M{number - 1}"), judge)
        rated = run.step(f"rated-{number}", rate_by_likelihood, likelihood, pairs=pairs, model=use)
        passed = run.step(f"gate-{number}", gate, GateConfig(min_repeated=0), rated=rated)
        best = KeepConfig(min_score=A4)
        kept = run.step(f"kept-{number}", keep, best, rated=rated, gate=passed)
        name = kept.name
        page.curated[name] = CuratedSet(setting=self.setting.name, seed=run.seed, round=number)
        page.documents[name], page.rated[name], page.kept[name] = documents, rated, kept
        return kept

    def _arm(self, arm: ArmName, seeds: RecipeStep, pairs: RecipeStep) -> RecipeStep:
        """Add a student of seed pairs and others; measure it where the setting names it."""
        others = self.run.step(f"{arm}.pairs", format_pairs, TAGGED, pairs={"web": pairs})
        repeated = {f"seeds {n}": seeds for n in range(1, REPEATS + 1)}
        student = self._student(arm, {**repeated, "web": others})
        if arm in self.setting.arms:
            if arm == "curated" and not self.page.answers:
                self.page.answers |= {"seeds": seeds, "web": others}
            self.run.measure(arm, [student], ASKED)
        return student

    def _student(self, arm: ArmName, answers: Mapping[str, Ref]) -> RecipeStep:
        trained = tuning(self.setting, tokens=self.setting.tokens, seed=self.run.seed)
        return self.run.step(arm, tune, trained, base=self.run.base, answers=answers)
