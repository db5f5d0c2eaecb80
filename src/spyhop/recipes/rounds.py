"""The steps of Humpback's rounds: data, backward model, ratings, students, promotions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spyhop.augment import backtranslate, format_pairs, reverse_pairs
from spyhop.collect import fetch, read_seeds
from spyhop.corpus import SampleConfig, sample
from spyhop.curate import (
    SplitConfig,
    check_pair_count,
    gate,
    keep,
    needs_repeats,
    rate,
    rate_by_likelihood,
    read_labels,
    split,
    with_threshold,
)
from spyhop.evaluate import HeldOutConfig, measure, score_held_out
from spyhop.models import Local
from spyhop.recipe.graph import Chosen, Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipe.promote import promote
from spyhop.recipes.evaluating import add_seal
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.inputs import add_base, add_items, placed, served
from spyhop.recipes.mixture import add_folder
from spyhop.recipes.segments import add_segments, expand
from spyhop.train import TuneConfig, tune

Model = RecipeStep | Source | Chosen
STUDENT = "student"
"""What every trained model is called when it is asked: its weights tell it apart, and a round that
was not promoted asks nothing again."""


@dataclass(frozen=True, slots=True)
class Data:
    """What the rounds work on."""

    items: dict[str, Ref]
    """Items of each suite."""
    seeds: RecipeStep
    """Seed pairs without the held-out ones."""
    held_out: RecipeStep | None
    """Held-out seed pairs as rows, where some are held out."""
    base: RecipeStep | Source
    segments: dict[str, RecipeStep]
    """Steps from pages to the segments that are backtranslated."""
    backward: RecipeStep
    augmented: RecipeStep
    labels: RecipeStep | None
    declared: dict[str, Ref]
    """Declaration that scores follow, if any, as the input `sealed`."""


Scored = dict[Literal["accuracy", "held_out"], RecipeStep | Chosen]
"""A model's scores by measure, those that are taken."""


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
    items = add_items(r, placed(config.suites))
    names = {f"seeds-{n}": each for n, each in enumerate(config.seeds, 1)}
    sets = {
        name: r.add(name, read_seeds, each.read, folder=add_folder(r, each, name))
        for name, each in names.items()
    }
    rest = SplitConfig(
        held_out_every_nth=config.held_out_every_nth, contamination=config.pages.contamination
    )
    clean = {"items": items} if items else {}
    seed_pairs = r.add("seeds", split, rest, pairs=sets, **clean)
    held_out = None
    if config.held_out_every_nth:
        held = rest.model_copy(update={"split": "held_out"})
        pairs = r.add("held-out", split, held, pairs=sets, **clean)
        held_out = r.add("held-out.rows", format_pairs, config.forward, pairs={"seeds": pairs})
    segments = _segments(r, config, items)
    base = add_base(r, config.student)
    reverse = r.add(
        "reversed", reverse_pairs, config.backtranslate.asked, pairs={"seeds": seed_pairs}
    )
    how = config.train_seed or config.train
    backward = r.add("backward", tune, how, base=base, answers={"seeds": reverse})
    writer = Use(Local(name="backward"), backward)
    augmented = r.add(
        "augmented",
        backtranslate,
        config.backtranslate,
        segments=list(segments.values())[-1],
        model=writer,
    )
    words = None
    if config.labels is not None:
        folder = Source(config.labels)
        words = r.add("labels", read_labels, config.read_labels, folder=folder, pairs=augmented)
    if config.rate.by == "judge" and needs_repeats(config.gate, config.keep):
        r.add("enough", check_pair_count, config.gate, pairs=augmented)
    models = [f"m{n}" for n in range(config.rounds + 1)]
    declared = add_seal(r, config.sealed, config.measure, placed(config.suites), items, models)
    return Data(items, seed_pairs, held_out, base, segments, backward, augmented, words, declared)


def add_rounds(r: Recipe, config: HumpbackConfig, data: Data) -> Rounds:
    """Add the rounds, unrolled: rate with the best student so far, keep, train, compare."""
    how = config.train_seed or config.train
    seed_pairs = {"seeds": data.seeds}
    first = add_student(r, config, "m0", data.base, seed_pairs, how)
    best_scores = add_scores(r, config, data, "m0", first)
    rounds = Rounds({"m0": first}, {"m0": best_scores}, first, best_scores, data.seeds)
    for n in range(1, config.rounds + 1):
        rated = _rated(r, config, data, n, rounds.best)
        known: dict[str, Ref] = {} if data.labels is None else {"labels": data.labels}
        passed = r.add(
            f"gate-{n}", gate, with_threshold(config.gate, config.keep), rated=rated, **known
        )
        kept = r.add(f"kept-{n}", keep, config.keep, rated=rated, gate=passed)
        name, pairs = f"m{n}", {**seed_pairs, "curated": kept}
        model = add_student(r, config, name, data.base, pairs, config.train)
        scores = add_scores(r, config, data, name, model)
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
        rounds.best_kept = kept if n == 1 else Chosen(by, before=rounds.best_kept, after=kept)
        rounds.models[name] = model
        rounds.scores[name] = scores
        rounds.rated[name] = rated
        rounds.gates[name] = passed
        rounds.kept[name] = kept
        rounds.promotions[name] = by
    return rounds


def add_student(
    r: Recipe,
    config: HumpbackConfig,
    name: str,
    base: RecipeStep | Source,
    pairs: Mapping[str, Ref],
    how: TuneConfig,
) -> RecipeStep:
    """Add a student and the rows that it reads: pairs under the system messages of their tags."""
    rows = r.add(f"{name}.rows", format_pairs, config.forward, pairs=pairs)
    return r.add(name, tune, how, base=base, answers={"pairs": rows})


def add_scores(
    r: Recipe,
    config: HumpbackConfig,
    data: Data,
    name: str,
    model: Model,
    message: str | None = None,
) -> Scored:
    """Add what a model scores on items and on held-out responses; `message` replaces the tags."""
    under = config.asked_under if message is None else message
    use = Use(Local(name=STUDENT), model)
    asked = config.measure.model_copy(update={"system_message": under})
    asked = asked.for_tasks(suite.task for suite in placed(config.suites))
    found: Scored = {}
    if data.items:
        found["accuracy"] = r.add(
            f"scores-{name}", measure, asked, items=data.items, model=use, **data.declared
        )
    if data.held_out is not None:
        settings, rows = HeldOutConfig(system_message=under), {"held out": data.held_out}
        found["held_out"] = r.add(
            f"held-out-{name}", score_held_out, settings, answers=rows, model=use
        )
    return found


def taken(scores: Mapping[str, Scored], measure: Literal["accuracy", "held_out"]) -> dict[str, Ref]:
    """Return the scores of the models that have this measure."""
    return {name: each[measure] for name, each in scores.items() if measure in each}


def _segments(r: Recipe, config: HumpbackConfig, items: Mapping[str, Ref]) -> dict[str, RecipeStep]:
    pages = config.pages
    found: dict[str, Ref] = {
        str(path): Source(path) for given in pages.inputs for path in expand(given)
    }
    if pages.fetch is not None:
        found = {"fetched": r.add("fetched-pages", fetch, pages.fetch)}
    steps = add_segments(r, pages.segment, pages.near, pages.contamination, found, items)
    if pages.num_segments is not None:
        size = SampleConfig(num_rows=pages.num_segments)
        steps["sampled"] = r.add("sampled", sample, size, segments=list(steps.values())[-1])
    return steps


def _rated(r: Recipe, config: HumpbackConfig, data: Data, n: int, student: Model) -> RecipeStep:
    rating = config.rate
    judge = Use(Local(name=STUDENT), student) if rating.file is None else served(rating.file)
    if rating.by == "judge":
        return r.add(f"rated-{n}", rate, rating.judge, pairs=data.augmented, judge=judge)
    under = rating.likelihood.system_message or config.forward.seed_message
    how = rating.likelihood.model_copy(update={"system_message": under})
    return r.add(f"rated-{n}", rate_by_likelihood, how, pairs=data.augmented, model=judge)
