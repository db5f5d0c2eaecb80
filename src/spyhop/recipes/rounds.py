"""The steps of Humpback's rounds: data, backward model, ratings, students, promotions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spyhop import curate
from spyhop.augment import backtranslate, format_pairs, reverse_pairs
from spyhop.collect import fetch, read_seeds
from spyhop.corpus import SampleConfig, sample
from spyhop.evaluate import HeldOutConfig, measure, score_held_out
from spyhop.models import Local
from spyhop.recipe.graph import Chosen, Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipe.promote import promote
from spyhop.recipes.evaluating import add_seal
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.inputs import add_base, add_items, placed, served
from spyhop.recipes.mixture import add_folder
from spyhop.recipes.segments import add_segments, page_sources
from spyhop.train import TuneConfig, tune

Model = RecipeStep | Source | Chosen
STUDENT = "student"
"""What every trained model is called when it is asked: its weights tell it apart, and a round that
was not promoted asks nothing again."""


Scored = dict[Literal["accuracy", "held_out"], RecipeStep | Chosen]
"""A model's scores by measure, those that are taken."""


@dataclass(frozen=True, slots=True)
class Data:
    """What the rounds work on, and how students learn from it and are measured."""

    r: Recipe
    config: HumpbackConfig
    items: dict[str, Ref]
    """Items of each suite."""
    seeds: RecipeStep
    """Seed pairs without the held-out ones."""
    held_out: dict[str, Ref]
    """Held-out seed pairs as rows, where some are held out."""
    base: RecipeStep | Source
    segments: dict[str, RecipeStep]
    """Steps from pages to the segments that are backtranslated."""
    augmented: RecipeStep
    labels: dict[str, Ref]
    """Human labels, if any, as the input `labels`."""
    declared: dict[str, Ref]
    """Declaration that scores follow, if any, as the input `sealed`."""

    def student(
        self,
        name: str,
        pairs: Mapping[str, Ref],
        how: TuneConfig,
        base: RecipeStep | Source | None = None,
    ) -> RecipeStep:
        """Add a student, and the rows that it reads: pairs under the messages of their tags."""
        rows = self.r.add(f"{name}.rows", format_pairs, self.config.forward, pairs=pairs)
        return self.r.add(name, tune, how, base=base or self.base, answers={"pairs": rows})

    def measure(self, name: str, model: Model, message: str | None = None) -> Scored:
        """Add a model's scores on items and held-out responses; `message` replaces the tags."""
        under = self.config.asked_under if message is None else message
        use, found = Use(Local(name=STUDENT), model), Scored()
        if self.items:
            asked = self.config.measure.model_copy(update={"system_message": under})
            asked = asked.for_tasks(suite.task for suite in placed(self.config.suites))
            found["accuracy"] = self.r.add(
                f"scores-{name}", measure, asked, items=self.items, model=use, **self.declared
            )
        if self.held_out:
            settings = HeldOutConfig(system_message=under)
            found["held_out"] = self.r.add(
                f"held-out-{name}", score_held_out, settings, answers=self.held_out, model=use
            )
        return found


@dataclass(slots=True)
class Rounds:
    """Steps of the rounds, each by the name of the student that it belongs to or leads to."""

    models: dict[str, RecipeStep]
    scores: dict[str, Scored]
    best: Model
    """The winner of the last promotion."""
    best_scores: Scored
    best_kept: Model
    """Curated pairs of the best student; those of the first round where none was promoted."""
    best_rows: Model
    """Rows that the best student was trained on."""
    rated: dict[str, RecipeStep] = field(default_factory=dict)
    gates: dict[str, RecipeStep] = field(default_factory=dict)
    kept: dict[str, RecipeStep] = field(default_factory=dict)
    promotions: dict[str, RecipeStep] = field(default_factory=dict)

    @property
    def last(self) -> str:
        """Name of the last round's student."""
        return list(self.models)[-1]


def add_data(r: Recipe, config: HumpbackConfig) -> Data:
    """Add the steps from files to backtranslated pairs."""
    suites = placed(config.suites)
    items = add_items(r, suites)
    names = {f"seeds-{n}": each for n, each in enumerate(config.seeds, 1)}
    sets = {
        name: r.add(name, read_seeds, each.read, folder=add_folder(r, each, name))
        for name, each in names.items()
    }
    rest = curate.SplitConfig(
        held_out_every_nth=config.held_out_every_nth, contamination=config.pages.contamination
    )
    clean = {"items": items} if items else {}
    seed_pairs = r.add("seeds", curate.split, rest, pairs=sets, **clean)
    held_out: dict[str, Ref] = {}
    if config.held_out_every_nth:
        held = rest.model_copy(update={"split": "held_out"})
        pairs = {"seeds": r.add("held-out", curate.split, held, pairs=sets, **clean)}
        held_out["held out"] = r.add("held-out.rows", format_pairs, config.forward, pairs=pairs)
    segments = _segments(r, config, items)
    base = add_base(r, config.student)
    asked = config.backtranslate.asked
    reverse = r.add("reversed", reverse_pairs, asked, pairs={"seeds": seed_pairs})
    how = config.train_seed or config.train
    backward = r.add("backward", tune, how, base=base, answers={"seeds": reverse})
    *_, last = segments.values()
    augmented = r.add(
        "augmented", backtranslate, config.backtranslate,
        segments=last, model=Use(Local(name="backward"), backward),
    )  # fmt: skip
    labels: dict[str, Ref] = {}
    if config.labels is not None:
        folder = Source(config.labels)
        labels["labels"] = r.add(
            "labels", curate.read_labels, config.read_labels, folder=folder, pairs=augmented
        )
    if config.rate.by == "judge" and curate.needs_repeats(config.gate, config.keep):
        r.add("enough", curate.check_pair_count, config.gate, pairs=augmented)
    models = [f"m{n}" for n in range(config.rounds + 1)]
    declared = add_seal(r, config.sealed, config.measure, suites, items, models)
    return Data(r, config, items, seed_pairs, held_out, base, segments, augmented, labels, declared)


def add_rounds(data: Data) -> Rounds:
    """Add the rounds, unrolled: rate with the best student so far, keep, train, compare."""
    r, config = data.r, data.config
    seed_pairs = {"seeds": data.seeds}
    first = data.student("m0", seed_pairs, config.train_seed or config.train)
    best_scores = data.measure("m0", first)
    rows = r.step("m0.rows")
    rounds = Rounds({"m0": first}, {"m0": best_scores}, first, best_scores, data.seeds, rows)
    for n in range(1, config.rounds + 1):
        rated = _rated(data, n, rounds.best)
        threshold = curate.with_threshold(config.gate, config.keep)
        passed = r.add(f"gate-{n}", curate.gate, threshold, rated=rated, **data.labels)
        kept = r.add(f"kept-{n}", curate.keep, config.keep, rated=rated, gate=passed)
        name = f"m{n}"
        model = data.student(name, {**seed_pairs, "curated": kept}, config.train)
        scores = data.measure(name, model)
        both = {"before": rounds.best_scores, "after": scores}
        compared = {
            when: each[config.promote_by]
            for when, each in both.items()
            if config.promote_by in each
        }
        by = r.add(f"promoted-{n}", promote, config.promote, **compared)
        rounds.best_scores = {
            measure: Chosen(by, before=before, after=scores[measure])
            for measure, before in rounds.best_scores.items()
        }
        rounds.best = Chosen(by, before=rounds.best, after=model)
        rounds.best_rows = Chosen(by, before=rounds.best_rows, after=r.step(f"{name}.rows"))
        rounds.best_kept = kept if n == 1 else Chosen(by, before=rounds.best_kept, after=kept)
        rounds.models[name], rounds.scores[name] = model, scores
        rounds.rated[name], rounds.gates[name], rounds.kept[name] = rated, passed, kept
        rounds.promotions[name] = by
    return rounds


def taken(scores: Mapping[str, Scored], measure: Literal["accuracy", "held_out"]) -> dict[str, Ref]:
    """Return the scores of the models that have this measure."""
    return {name: each[measure] for name, each in scores.items() if measure in each}


def _segments(r: Recipe, config: HumpbackConfig, items: Mapping[str, Ref]) -> dict[str, RecipeStep]:
    pages = config.pages
    found = page_sources(pages.inputs)
    if pages.fetch is not None:
        found = {"fetched": r.add("fetched-pages", fetch, pages.fetch)}
    steps = add_segments(r, pages.segment, pages.near, pages.contamination, found, items)
    if pages.num_segments is not None:
        size, (*_, last) = SampleConfig(num_rows=pages.num_segments), steps.values()
        steps["sampled"] = r.add("sampled", sample, size, segments=last)
    return steps


def _rated(data: Data, n: int, student: Model) -> RecipeStep:
    rating = data.config.rate
    judge = Use(Local(name=STUDENT), student) if rating.file is None else served(rating.file)
    if rating.by == "judge":
        return data.r.add(
            f"rated-{n}", curate.rate, rating.judge, pairs=data.augmented, judge=judge
        )
    under = rating.likelihood.system_message or data.config.forward.seed_message
    how = rating.likelihood.model_copy(update={"system_message": under})
    return data.r.add(
        f"rated-{n}", curate.rate_by_likelihood, how, pairs=data.augmented, model=judge
    )
