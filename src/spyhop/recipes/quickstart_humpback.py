"""The Humpback loop in miniature, with the controls that the paper lacks.

Every arm starts from the same model and reads as many tokens of seed pairs and others, of which
`experiment.ARMS` has the titles. `random` draws about as many as curation keeps; M0, the student of
`seed`, rates for `curated`, and M1, the student of `curated`, for `round-2`.

Seed pairs count twice in every mixture. Nothing but the page at the end looks at what kind a
document is.
"""

from typing import Literal, NamedTuple, get_args

from pydantic import Field

from spyhop import augment, curate, world
from spyhop.models import Local, Sampling
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Use
from spyhop.recipes.experiment import Experiment, ExperimentSetting, Page, starting_model, tuning
from spyhop.report import CuratedSet
from spyhop.schema import Config
from spyhop.text.tables import table
from spyhop.train import tune

ArmName = Literal["seed", "seed-own", "uncurated", "random", "curated", "round-2"]
MOST_FRAC = 0.4
"""Share of the documents that is rated 4 and better: ratings are fifths."""
REPEATS = 2
"""Copies of the seed pairs in a mixture."""


TAGGED = augment.ForwardConfig()
"""System messages that distinguish seed pairs from web pairs; students are prompted with both."""
ASKED = f"{TAGGED.seed_message} {TAGGED.web_message}"
WRITTEN = augment.BacktranslateConfig(
    asked=augment.ReversedConfig(prompt="{response}", system_message="Write the question."),
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
    written: augment.BacktranslateConfig = WRITTEN
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
    r, page, curation = Recipe(name), Page(), Curation({}, {}, {}, {})
    for setting in config.settings:
        base = starting_model(r, setting, world.TokenizerConfig(texts=TEXTS))
        drawn = setting.problems(setting.num_items, ITEMS_SEED)
        items = r.add(f"{setting.name}.items", world.draw_items, drawn)
        for seed in config.seeds:
            _add_loop(Experiment(r, setting, seed, base, items, page), config.written, curation)
    page.add(
        r, get_args(ArmName), LIMITS, curation.curated,
        documents=curation.documents, rated=curation.rated, kept=curation.kept,
    )  # fmt: skip
    return r


class Curation(NamedTuple):
    """Inputs of the report, by the names of the steps that keep pairs."""

    curated: dict[str, CuratedSet]
    documents: dict[str, Ref]
    rated: dict[str, Ref]
    kept: dict[str, Ref]


def _add_loop(
    run: Experiment[HumpbackSetting], written: augment.BacktranslateConfig, curation: Curation
) -> None:
    """Add the loop of one seed: write, rate, keep, train, rate again."""
    setting, arms = run.setting, run.setting.arms
    seeds = run.step("seeds", world.draw_pairs, setting.problems(setting.num_pairs, run.seed))
    found = world.DocumentsConfig(
        families=setting.families, num_rows=setting.num_documents, shares=setting.kinds,
        steps=setting.steps, seed=run.seed,
    )  # fmt: skip
    documents = run.step("documents", world.draw_documents, found)
    pairs = _written(run, written, seeds, documents)
    learned = run.step("learned", augment.format_pairs, TAGGED, pairs={"seeds": seeds})

    def student(arm: ArmName, **answers: Ref) -> RecipeStep:
        trained = tuning(setting, tokens=setting.tokens, seed=run.seed)
        return run.step(arm, tune, trained, base=run.base, answers=answers)

    def add_arm(arm: ArmName, others: RecipeStep) -> RecipeStep:
        """Add a student of seed pairs and others; measure it where the setting names it."""
        web = run.step(f"{arm}.pairs", augment.format_pairs, TAGGED, pairs={"web": others})
        repeated = {f"seeds {n}": learned for n in range(1, REPEATS + 1)}
        trained = student(arm, **repeated, web=web)
        if arm in arms:
            if arm == "curated" and not run.page.answers:
                run.page.answers |= {"seeds": learned, "web": web}
            run.measure(arm, [trained], ASKED)
        return trained

    m0 = student("seed", seeds=learned)
    for arm, message in (("seed", ASKED), ("seed-own", TAGGED.seed_message)):
        if arm in arms:
            run.measure(arm, [m0], message)
    if "uncurated" in arms:
        add_arm("uncurated", pairs)
    if "random" in arms:
        num_rows = round(MOST_FRAC * setting.num_documents)
        quota = curate.KeepConfig(num_rows=num_rows, take="random", seed=run.seed)
        add_arm("random", run.step("drawn", curate.keep, quota, rated=pairs))
    m1 = add_arm("curated", _curated(run, curation, 1, documents, pairs, m0))
    if "round-2" in arms:
        add_arm("round-2", _curated(run, curation, 2, documents, pairs, m1))


def _written(
    run: Experiment[HumpbackSetting],
    written: augment.BacktranslateConfig,
    seeds: RecipeStep,
    documents: RecipeStep,
) -> RecipeStep:
    """Add the backward model and the instructions that it writes."""
    turned = run.step("turned", augment.reverse_pairs, written.asked, pairs={"seeds": seeds})
    trained = tuning(run.setting, tokens=run.setting.backward_tokens, seed=run.seed)
    backward = run.step("backward", tune, trained, base=run.base, answers={"seeds": turned})
    sampling = written.sampling.model_copy(update={"seed": run.seed})
    asked = written.model_copy(update={"sampling": sampling})
    model = Use(Local(name="backward model"), backward)
    return run.step("written", augment.backtranslate, asked, segments=documents, model=model)


def _curated(
    run: Experiment[HumpbackSetting],
    curation: Curation,
    number: int,
    documents: RecipeStep,
    pairs: RecipeStep,
    judge: RecipeStep,
) -> RecipeStep:
    """Add a round of rating, and return the pairs that are kept."""
    likelihood = curate.LikelihoodConfig(system_message=TAGGED.seed_message)
    use = Use(Local(name=f"M{number - 1}"), judge)
    rated = run.step(
        f"rated-{number}", curate.rate_by_likelihood, likelihood, pairs=pairs, model=use
    )
    passed = run.step(f"gate-{number}", curate.gate, curate.GateConfig(min_repeated=0), rated=rated)
    best = curate.KeepConfig(min_score=curate.A4)
    kept = run.step(f"kept-{number}", curate.keep, best, rated=rated, gate=passed)
    name = kept.name
    curation.curated[name] = CuratedSet(setting=run.setting.name, seed=run.seed, round=number)
    curation.documents[name], curation.rated[name], curation.kept[name] = documents, rated, kept
    return kept
