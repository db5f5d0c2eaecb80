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

from typing import Literal

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
from spyhop.evaluate import MeasureConfig, measure
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Node, Recipe, Ref, Use
from spyhop.report import ArmPair, ArmRun, CuratedSet, CurationPageConfig, curation_page
from spyhop.schema import Config
from spyhop.stage import Stage
from spyhop.train import NewModelConfig, OptimizerConfig, TuneConfig, new_model, tune

ArmName = Literal["seed", "seed-own", "uncurated", "random", "curated", "round-2"]
MOST_FRAC = 0.4
"""Share of the documents that is rated 4 and better: a rating is the fifth that one stands in."""
REPEATS = 2
"""How often the seed pairs stand in a mixture."""


class HumpbackSetting(Config):
    """One set of documents, the student that meets them, and the budgets."""

    name: str
    arms: tuple[ArmName, ...] = Field(min_length=1)
    kinds: dict[world.DocumentKind, float]
    """How the documents divide into kinds."""
    families: tuple[world.FamilyName, ...] = world.CORE
    steps: world.Steps = (3, 6)
    num_pairs: int = Field(300, gt=0)
    """Seed pairs."""
    num_documents: int = Field(2500, gt=0)
    num_items: int = Field(400, gt=0)
    """Held-out test problems, the same for every arm and seed."""
    items_seed: int = 1
    """Draws the test problems. Settings were chosen on those of 0."""
    tokens: int = Field(700_000, gt=0)
    """Budget of every arm."""
    backward_tokens: int = Field(200_000, gt=0)
    student: NewModelConfig
    copy_rows: int = Field(9000, gt=0)
    copy_tokens: int = Field(600_000, gt=0)
    """The starting model's own training: copying lists of random words."""
    copy_batch_tokens: int = Field(1024, gt=0)
    optimizer: OptimizerConfig
    batch_tokens: int = Field(512, gt=0)


class QuickstartHumpbackConfig(Config):
    """Settings of the `quickstart_humpback` recipe."""

    name: str = "quickstart_humpback"
    settings: tuple[HumpbackSetting, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((5, 6, 7), min_length=1)
    """Each seed draws its own seed pairs, documents, instructions and order of training."""
    tagged: ForwardConfig = ForwardConfig()
    """The system messages that tell seed pairs from web pairs; students are asked under both."""
    written: BacktranslateConfig = BacktranslateConfig(
        asked=ReversedConfig(prompt="{response}", system_message="Write the question."),
        sampling=Sampling(max_new_tokens=128),
    )
    """How the backward model is trained and asked for instructions: greedily, unlike the paper, for
    at this size a quarter of the instructions drawn at temperature 0.7 miss their document."""
    min_score: float = Field(A4, ge=1, le=5)


COMPARISONS = (
    ArmPair(first="uncurated", second="curated"),
    ArmPair(first="random", second="curated"),
    ArmPair(first="seed", second="curated"),
    ArmPair(first="seed", second="uncurated"),
    ArmPair(first="curated", second="round-2"),
    ArmPair(first="seed-own", second="curated"),
)
TITLES = {
    "seed": "seed pairs only",
    "seed-own": "seed pairs only, asked as trained",
    "uncurated": "seed + all documents",
    "random": "seed + about as many at random",
    "curated": "seed + curated",
    "round-2": "seed + curated in round 2",
}
LIMITS = (
    "The documents are generated, and so are their flaws: how many there are, and that most flawed "
    "ones err in the same few ways, was chosen here. With other shares the differences would be "
    "others.",
    "The rating is a likelihood under the student itself. Models of this size cannot rate by a "
    "prompt, so this says nothing of the paper's rating prompt, nor of its five described scores.",
    "The students have 0.2 million parameters, start from a stage of copying that stands in for "
    "pre-training, and know nothing else. None of this tells what models of 7 or 65 billion "
    "parameters would do.",
    "At equal tokens an arm that adds documents sees its seed pairs less often. The more it adds "
    "the less, so all documents against the curated ones is a comparison of two things at once; "
    "about as many at random (--thorough) is the control that differs in the choice alone. It "
    "takes a fixed two fifths of all documents, some more than are kept: 1,000 of 2,500, where "
    "curation kept about 966.",
    "Rounding alone moves such figures by as much as their intervals: training ends within a phase "
    "transition, and the same seeds in another order of sums gave curated against seed pairs +4.8 "
    "[-0.8, +11.1] in place of +11.4 [+6.9, +15.7]. That curated documents beat seed pairs is not "
    "robust; that they beat all documents held in both.",
)


def quickstart_humpback(config: QuickstartHumpbackConfig) -> Recipe:
    """The Humpback loop in an embedded world: documents with and without curation, two rounds."""
    r = Recipe(config.name)
    page = _Page()
    for setting in config.settings:
        base = _starting_model(r, config, setting)
        drawn = world.ProblemsConfig(
            families=setting.families,
            num_rows=setting.num_items,
            steps=setting.steps,
            seed=setting.items_seed,
        )
        items = r.add(f"{setting.name}.items", world.draw_items, drawn)
        for seed in config.seeds:
            _Run(r, config, setting, seed, base, items, page).add()
    r.add(
        "report",
        curation_page,
        CurationPageConfig(
            title=config.name,
            runs=tuple(page.runs),
            curated=tuple(page.curated),
            comparisons=COMPARISONS,
            arm_titles=TITLES,
            limits=LIMITS,
        ),
        scores=page.scores,
        students=page.students,
        answers=page.answers,
        documents=page.documents,
        rated=page.rated,
        kept=page.kept,
    )
    return r


class _Page:
    """What the report reads, in parallel lists."""

    def __init__(self) -> None:
        self.runs: list[ArmRun] = []
        self.scores: list[Ref] = []
        self.students: list[Ref] = []
        self.curated: list[CuratedSet] = []
        self.documents: list[Ref] = []
        self.rated: list[Ref] = []
        self.kept: list[Ref] = []
        self.answers: list[Ref] = []


def _starting_model(r: Recipe, config: QuickstartHumpbackConfig, setting: HumpbackSetting) -> Node:
    """A small model that can copy and nothing else; every arm starts from it."""
    name, tagged = setting.name, config.tagged
    texts = (
        tagged.seed_message,
        tagged.web_message,
        config.written.asked.system_message,
        " | ".join(world.MENU),
    )
    words = r.add(f"{name}.tokenizer", world.train_tokenizer, world.TokenizerConfig(texts=texts))
    fresh = r.add(f"{name}.new", new_model, setting.student, tokenizer=words)
    copies = r.add(
        f"{name}.copies", world.draw_copies, world.CopiesConfig(num_rows=setting.copy_rows)
    )
    learned = _tune_config(setting, tokens=setting.copy_tokens, seed=0)
    learned = learned.model_copy(update={"batch_tokens": setting.copy_batch_tokens})
    return r.add(f"{name}.base", tune, learned, base=fresh, answers=[copies])


def _tune_config(setting: HumpbackSetting, *, tokens: int, seed: int) -> TuneConfig:
    return TuneConfig(
        tokens=tokens,
        batch_tokens=setting.batch_tokens,
        max_tokens=512,
        optimizer=setting.optimizer,
        seed=seed,
    )


class _Run:
    """One seed of one setting."""

    def __init__(
        self,
        r: Recipe,
        config: QuickstartHumpbackConfig,
        setting: HumpbackSetting,
        seed: int,
        base: Node,
        items: Node,
        page: _Page,
    ) -> None:
        self._r, self._config, self._setting, self._seed = r, config, setting, seed
        self._base, self._items, self._page = base, items, page

    def add(self) -> None:
        """Add the loop: write, rate, keep, train, rate again."""
        setting, arms = self._setting, self._setting.arms
        drawn = {"families": setting.families, "steps": setting.steps, "seed": self._seed}
        chosen = world.ProblemsConfig(num_rows=setting.num_pairs, **drawn)
        seeds = self._node("seeds", world.draw_pairs, chosen)
        found = world.DocumentsConfig(num_rows=setting.num_documents, shares=setting.kinds, **drawn)
        documents = self._node("documents", world.draw_documents, found)
        pairs = self._written(seeds, documents)
        learned = self._node("learned", format_pairs, self._config.tagged, pairs=[seeds])
        m0 = self._student("seed", [learned])
        if "seed" in arms:
            self._measure("seed", m0)
        if "seed-own" in arms:
            self._measure("seed-own", m0)
        if "uncurated" in arms:
            self._arm("uncurated", learned, pairs)
        if "random" in arms:
            quota = KeepConfig(
                num_rows=round(MOST_FRAC * setting.num_documents), take="random", seed=self._seed
            )
            self._arm("random", learned, self._node("drawn", keep, quota, rated=pairs))
        kept = self._curated(1, documents, pairs, m0)
        m1 = self._arm("curated", learned, kept)
        if "round-2" in arms:
            self._arm("round-2", learned, self._curated(2, documents, pairs, m1))

    def _written(self, seeds: Node, documents: Node) -> Node:
        """Add the backward model and the instructions that it writes."""
        config, setting = self._config.written, self._setting
        turned = self._node("turned", reverse_pairs, config.asked, pairs=[seeds])
        trained = _tune_config(setting, tokens=setting.backward_tokens, seed=self._seed)
        backward = self._node("backward", tune, trained, base=self._base, answers=[turned])
        sampling = config.sampling.model_copy(update={"seed": self._seed})
        asked = config.model_copy(update={"sampling": sampling})
        model = Use(Local(name="backward model"), backward)
        return self._node("written", backtranslate, asked, segments=documents, model=model)

    def _curated(self, number: int, documents: Node, pairs: Node, judge: Node) -> Node:
        """Add a round of rating, and return the pairs that are kept."""
        weighed = LikelihoodConfig(system_message=self._config.tagged.seed_message)
        use = Use(Local(name=f"M{number - 1}"), judge)
        rated = self._node(f"rated-{number}", rate_by_likelihood, weighed, pairs=pairs, model=use)
        passed = self._node(f"gate-{number}", gate, GateConfig(min_repeated=0), rated=rated)
        best = KeepConfig(min_score=self._config.min_score)
        kept = self._node(f"kept-{number}", keep, best, rated=rated, gate=passed)
        page = self._page
        page.curated.append(CuratedSet(setting=self._setting.name, seed=self._seed, round=number))
        page.documents.append(documents)
        page.rated.append(rated)
        page.kept.append(kept)
        return kept

    def _arm(self, arm: ArmName, seeds: Node, pairs: Node) -> Node:
        """Add a student of seed pairs and others; measure it where the setting names it."""
        others = self._node(f"{arm}.pairs", format_pairs, self._config.tagged, pairs=[pairs])
        student = self._student(arm, [*[seeds] * REPEATS, others])
        if arm in self._setting.arms:
            if arm == "curated" and not self._page.answers:
                self._page.answers += [seeds, others]
            self._measure(arm, student)
        return student

    def _student(self, arm: ArmName, answers: list[Ref]) -> Node:
        trained = _tune_config(self._setting, tokens=self._setting.tokens, seed=self._seed)
        return self._node(arm, tune, trained, base=self._base, answers=answers)

    def _measure(self, arm: ArmName, student: Node) -> None:
        tagged = self._config.tagged
        text = " ".join(filter(None, (tagged.seed_message, tagged.web_message)))
        if arm == "seed-own":
            text = tagged.seed_message
        asked = MeasureConfig(system_message=text, sampling=Sampling(max_new_tokens=256))
        model = Use(Local(name=arm), student)
        scores = self._node(f"{arm}.scores", measure, asked, items=[self._items], model=model)
        page = self._page
        page.runs.append(ArmRun(setting=self._setting.name, arm=arm, seed=self._seed))
        page.scores.append(scores)
        page.students.append(student)

    def _node(self, kind: str, stage: Stage, config: Config, **inputs: Ref | list[Ref]) -> Node:
        return self._r.add(f"{self._setting.name}.{kind}.{self._seed}", stage, config, **inputs)
