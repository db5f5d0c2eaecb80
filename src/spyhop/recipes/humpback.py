"""Humpback: rounds of self-augmentation and self-curation, from seed pairs and web pages.

Source: Humpback (arXiv:2308.06259): a backward model writes instructions for segments, the student
rates the pairs, the best ones and the seeds train the next student, who rates again. Further
students are the paper's ablations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from spyhop import curate
from spyhop.augment import ForwardConfig, backtranslate, format_pairs, reverse_pairs
from spyhop.collect import fetch, read_seeds
from spyhop.corpus import SampleConfig, sample
from spyhop.evaluate import HeldOutConfig, measure, score_held_out
from spyhop.evaluate.likelihood import RoundTripConfig, round_trip
from spyhop.models import Local
from spyhop.recipe.graph import Chosen, Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipe.promote import promote
from spyhop.recipes.evaluating import add_audits, add_seal
from spyhop.recipes.humpback_config import HumpbackConfig, Point, ScalingSet
from spyhop.recipes.inputs import add_base, add_items, placed, served
from spyhop.recipes.mixture import add_collection, add_folder
from spyhop.recipes.segments import add_segments, page_sources
from spyhop.report import DatasetConfig, HumpbackPageConfig, StudentRun, dataset, humpback_page
from spyhop.schema import NoConfig
from spyhop.train import TuneConfig, tune
from spyhop.train.release import ReleaseConfig, release, with_title

GRADES: dict[str, float | None] = {"no curation": None, "A4": curate.A4, "A5": curate.A5}
"""Rows of the table of quality against quantity, with the score that a pair must have."""
TRIPS = ("round-trip", "round-trip-base")
MAIN = "main"
"""The recipe's own student, among those of other sizes."""
Model = RecipeStep | Source | Chosen
STUDENT = "student"
"""What every trained model is called when it is asked: its weights tell it apart, and a round that
was not promoted asks nothing again."""
Scored = dict[Literal["accuracy", "held_out"], RecipeStep | Chosen]
"""A model's scores by measure, those that are taken."""


def humpback(config: HumpbackConfig, name: str = "humpback") -> Recipe:
    """Rounds on seed pairs and web pages: write instructions, rate, keep, train, compare."""
    r = Recipe(name)
    rounds = add_rounds(add_data(r, config))
    for ablation, add in _ABLATIONS.items():
        if ablation in config.ablate:
            add(rounds)
    _add_release(rounds)
    _add_report(rounds)
    return r


@dataclass(frozen=True, slots=True)
class Data:
    """What the rounds work on, and how students are measured."""

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
    """Steps of the rounds, by the name of the student that they lead to, and of the ablations."""

    data: Data
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
    runs: dict[str, StudentRun] = field(default_factory=dict)
    """Lines of the page's tables, each a student with its scores."""
    students: dict[str, Model] = field(default_factory=dict)
    scores: dict[str, Scored] = field(default_factory=dict)
    graded: dict[str, RecipeStep] = field(default_factory=dict)
    """Pairs that the students of the table `quality` were trained on."""

    @property
    def last(self) -> str:
        """Name of the last round's student."""
        return list(self.promotions)[-1]

    def add(self, name: str, run: StudentRun, student: Model, scores: Scored) -> None:
        """Add a line of a table."""
        self.runs[name], self.students[name], self.scores[name] = run, student, scores

    def learn(
        self,
        name: str,
        run: StudentRun,
        pairs: Mapping[str, Ref],
        how: TuneConfig,
        base: RecipeStep | Source | None = None,
    ) -> RecipeStep:
        """Add a student of pairs under the messages of their tags, its scores and its line."""
        r, data = self.data.r, self.data
        rows = r.add(f"{name}.rows", format_pairs, data.config.forward, pairs=pairs)
        student = r.add(name, tune, how, base=base or data.base, answers={"pairs": rows})
        self.add(name, run, student, data.measure(name, student))
        return student


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
    pages, found = config.pages, page_sources(config.pages.inputs)
    if pages.fetch is not None:
        found = {"fetched": r.add("fetched-pages", fetch, pages.fetch)}
    segments = add_segments(r, pages.segment, pages.near, pages.contamination, found, items)
    if pages.num_segments is not None:
        size, (*_, last) = SampleConfig(num_rows=pages.num_segments), segments.values()
        segments["sampled"] = r.add("sampled", sample, size, segments=last)
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
    r, config, seed_pairs = data.r, data.config, {"seeds": data.seeds}
    rounds = Rounds(data, data.base, {}, data.seeds, data.seeds)
    run = StudentRun(table="rounds", kind="M0")
    rounds.best = rounds.learn("m0", run, seed_pairs, config.train_seed or config.train)
    rounds.best_scores, rounds.best_rows = rounds.scores["m0"], r.step("m0.rows")
    for n in range(1, config.rounds + 1):
        rated = _rated(data, n, rounds.best)
        threshold = curate.with_threshold(config.gate, config.keep)
        passed = r.add(f"gate-{n}", curate.gate, threshold, rated=rated, **data.labels)
        kept = r.add(f"kept-{n}", curate.keep, config.keep, rated=rated, gate=passed)
        name, run = f"m{n}", StudentRun(table="rounds", kind=f"M{n}")
        model = rounds.learn(name, run, {**seed_pairs, "curated": kept}, config.train)
        scores = rounds.scores[name]
        compared = taken({"before": rounds.best_scores, "after": scores}, config.promote_by)
        by = r.add(f"promoted-{n}", promote, config.promote, **compared)
        rounds.best_scores = {
            measure: Chosen(by, before=before, after=scores[measure])
            for measure, before in rounds.best_scores.items()
        }
        rounds.best = Chosen(by, before=rounds.best, after=model)
        rounds.best_rows = Chosen(by, before=rounds.best_rows, after=r.step(f"{name}.rows"))
        rounds.best_kept = kept if n == 1 else Chosen(by, before=rounds.best_kept, after=kept)
        rounds.rated[name], rounds.gates[name], rounds.kept[name] = rated, passed, kept
        rounds.promotions[name] = by
    return rounds


def taken(scores: Mapping[str, Scored], measure: Literal["accuracy", "held_out"]) -> dict[str, Ref]:
    """Return the scores of the models that have this measure."""
    return {name: each[measure] for name, each in scores.items() if measure in each}


def _rated(data: Data, n: int, student: Model) -> RecipeStep:
    rating, name, pairs = data.config.rate, f"rated-{n}", data.augmented
    judge = Use(Local(name=STUDENT), student) if rating.file is None else served(rating.file)
    if rating.by == "judge":
        return data.r.add(name, curate.rate, rating.judge, pairs=pairs, judge=judge)
    under = rating.likelihood.system_message or data.config.forward.seed_message
    how = rating.likelihood.model_copy(update={"system_message": under})
    return data.r.add(name, curate.rate_by_likelihood, how, pairs=pairs, model=judge)


def _add_report(rounds: Rounds) -> None:
    """Add the page, with the imitation audit of the best student and the round trips.

    The teacher of the audit is the text that the student was trained on.
    """
    data, r, config = rounds.data, rounds.data.r, rounds.data.config
    audits, best = dict[str, Ref](), rounds.best_scores.get("accuracy")
    if config.judge is not None and best is not None:
        base_scores = data.measure("base", data.base)["accuracy"]
        rows = {"pairs": r.step(f"{rounds.last}.rows")}
        audits = add_audits(r, [served(config.judge)], data.items, base_scores, best, rows)
    student = Use(Local(name=STUDENT), rounds.students["m0"])
    augmented: dict[str, Ref] = {"all augmented": data.augmented}
    if "backward" in config.ablate:
        base, (*_, segments) = Use(Local(name="base"), data.base), data.segments.values()
        augmented["base asked directly"] = r.add(
            "augmented-base", backtranslate, config.backtranslate, segments=segments, model=base
        )
    trips: dict[str, Ref] = {
        name: r.add(trip, round_trip, RoundTripConfig(), pairs=each, model=student)
        for (name, each), trip in zip(augmented.items(), TRIPS, strict=False)
    }
    page = HumpbackPageConfig(title=r.name, runs=rounds.runs, asked_under=config.asked_under)
    r.add(
        "report", humpback_page, page, seeds=data.seeds, augmented=augmented, rated=rounds.rated,
        gates=rounds.gates, kept=rounds.kept, promotions=rounds.promotions,
        students=rounds.students,
        accuracy=taken(rounds.scores, "accuracy"), held_out=taken(rounds.scores, "held_out"),
        graded=rounds.graded, steps=data.segments, audits=audits, trips=trips, **data.declared,
    )  # fmt: skip


def _add_release(rounds: Rounds) -> None:
    """Add the folders to give away: the best student's rows, and the student."""
    data, r, answers = rounds.data, rounds.data.r, {"pairs": rounds.best_rows}
    given = r.add("dataset", dataset, DatasetConfig(title=r.name), answers=answers)
    scored = rounds.best_scores.get("accuracy")
    known = {} if scored is None else {"scores": scored}
    r.add(
        "model", release, with_title(ReleaseConfig(), r.name), model=rounds.best,
        base=data.base, answers=answers, data=given, **known,
    )  # fmt: skip


def _quality(rounds: Rounds) -> None:
    """Web pairs alone, N of each grade: does quality or quantity count? (Figure 3, v1)."""
    r, config = rounds.data.r, rounds.data.config
    rated, passed = rounds.rated[rounds.last], rounds.gates[rounds.last]
    bases = {MAIN: rounds.data.base} | {
        name: add_base(r.within(f"{name}."), student) for name, student in config.students.items()
    }
    least, most = config.quality_rows
    for point in (each for each in config.points if least <= each.num_rows <= most):
        how = at_point(config.train, config.row_tokens, point, 0)
        for grade, score in GRADES.items():
            name = f"{grade.replace(' ', '-').lower()}-{point.num_rows}"
            chosen = curate.KeepConfig(
                min_score=score, num_rows=point.num_rows, fewer=True, take="random",
                gate=config.keep.gate,
            )  # fmt: skip
            pairs = r.add(f"quality.{name}", curate.keep, chosen, rated=rated, gate=passed)
            for size, base in bases.items():
                run = StudentRun(table="quality", kind=grade, student=size, num_rows=point.num_rows)
                rounds.graded[f"{size}.{name}"] = pairs
                rounds.learn(f"{size}.{name}", run, {grade: pairs}, how, base)


def _sources(rounds: Rounds) -> None:
    """Seeds alone, web pairs alone, both; all with the settings of the rounds (Figure 7, v1)."""
    data, kept = rounds.data, rounds.best_kept
    everything = curate.KeepConfig()
    uncurated = data.r.add("sources.uncurated", curate.keep, everything, rated=data.augmented)
    given: dict[str, dict[str, Ref]] = {
        "seeds": {"seeds": data.seeds},
        "curated": {"curated": kept},
        "uncurated": {"uncurated": uncurated},
        "seeds and uncurated": {"seeds": data.seeds, "uncurated": uncurated},
        "seeds and curated": {"seeds": data.seeds, "curated": kept},
    }
    for kind, pairs in given.items():
        name = f"sources.{kind.replace(' ', '-')}.student"
        rounds.learn(name, StudentRun(table="sources", kind=kind), pairs, data.config.train)


def _messages(rounds: Rounds) -> None:
    """Tags in training and in inference (Table 5, v3); the tagged student is the best one."""
    data = rounds.data
    run = StudentRun(table="messages", kind="tags, asked under both")
    rounds.add("best-under-both", run, rounds.best, rounds.best_scores)
    for kind, message in {"seed": data.config.forward.seed_message, "none": ""}.items():
        run = StudentRun(table="messages", kind=f"tags, asked under {kind}")
        under = f"best-under-{kind}"
        rounds.add(under, run, rounds.best, data.measure(under, rounds.best, message))
    plain, pairs = ForwardConfig(seed_message="", web_message=""), {"seeds": data.seeds}
    rows: Model = data.r.add("untagged.rows-m0", format_pairs, plain, pairs=pairs)
    for name, by in rounds.promotions.items():
        both = {**pairs, "curated": rounds.kept[name]}
        after = data.r.add(f"untagged.rows-{name}", format_pairs, plain, pairs=both)
        rows = Chosen(by, before=rows, after=after)
    student = data.r.add(
        "untagged", tune, data.config.train, base=data.base, answers={"pairs": rows}
    )
    run = StudentRun(table="messages", kind="no tags, asked under none")
    rounds.add("untagged", run, student, data.measure("untagged", student, ""))


def _scaling(rounds: Rounds) -> None:
    """The same sizes and steps for every data set (Table 3, v1)."""
    data, config = rounds.data, rounds.data.config
    clean = {"items": data.items} if data.items else {}
    for each in config.scaling:
        whole = _set(rounds, each)
        points = [p for p in config.points if each.max_rows is None or p.num_rows <= each.max_rows]
        for seed, point in product(config.scaling_seeds, points):
            size = curate.SplitConfig(
                held_out_every_nth=config.held_out_every_nth, num_rows=point.num_rows, seed=seed,
                contamination=config.pages.contamination,
            )  # fmt: skip
            name = f"scaling.{each.name}-{point.num_rows}.{seed}"
            pairs = data.r.add(name, curate.split, size, pairs=whole, **clean)
            run = StudentRun(table="scaling", kind=each.name, num_rows=point.num_rows, seed=seed)
            how = at_point(config.train, config.row_tokens, point, seed)
            rounds.learn(f"{name}.student", run, {each.name: pairs}, how)


def _set(rounds: Rounds, each: ScalingSet) -> dict[str, Ref]:
    name, r = f"scaling.{each.name}", rounds.data.r
    if each.seeds is not None:
        folder = add_folder(r, each.seeds, name)
        return {each.name: r.add(name, read_seeds, each.seeds.read, folder=folder)}
    if each.collection is not None:
        queries = add_collection(r.within(f"{name}."), each.collection, 0)
        given = {each.name: queries}
        return {each.name: r.add(name, curate.queries_to_pairs, NoConfig(), queries=given)}
    return {"seeds": rounds.data.seeds, "curated": rounds.best_kept}


_ABLATIONS = {"quality": _quality, "sources": _sources, "messages": _messages, "scaling": _scaling}


def at_point(train: TuneConfig, row_tokens: int, point: Point, seed: int) -> TuneConfig:
    """Return the settings of training with the budget of a point."""
    batch_tokens = point.batch_rows * row_tokens
    budget = {"tokens": point.steps * batch_tokens, "epochs": None, "batch_tokens": batch_tokens}
    return train.model_copy(update={**budget, "seed": seed})
