"""Further students of the Humpback recipe, for the paper's ablations, and the run's report."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from spyhop.augment import ForwardConfig, backtranslate, format_pairs
from spyhop.collect import read_seeds
from spyhop.curate import (
    A4,
    A5,
    KeepConfig,
    SplitConfig,
    keep,
    queries_to_pairs,
    split,
)
from spyhop.evaluate.round_trip import RoundTripConfig, round_trip
from spyhop.models import Local
from spyhop.recipe.graph import Chosen, Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.humpback_config import HumpbackConfig, Point, ScalingSet
from spyhop.recipes.inputs import add_base
from spyhop.recipes.mixture import add_collection, add_folder
from spyhop.recipes.rounds import (
    STUDENT,
    Data,
    Model,
    Rounds,
    Scored,
    add_scores,
    add_student,
    taken,
)
from spyhop.report import HumpbackPageConfig, StudentRun, humpback_page
from spyhop.schema import NoConfig
from spyhop.train import TuneConfig, tune

GRADES: dict[str, float | None] = {"no curation": None, "A4": A4, "A5": A5}
"""Rows of the table of quality against quantity, with the score that a pair must have."""
TRIPS = ("round-trip", "round-trip-base")
MAIN = "main"
"""The recipe's own student, among those of other sizes."""


@dataclass(slots=True)
class Arms:
    """Lines of the page's tables, by name: a student with its scores."""

    runs: dict[str, StudentRun] = field(default_factory=dict)
    students: dict[str, Model] = field(default_factory=dict)
    scores: dict[str, Scored] = field(default_factory=dict)
    graded: dict[str, RecipeStep] = field(default_factory=dict)
    """Pairs that the students of the table `quality` were trained on."""

    def add(self, name: str, run: StudentRun, student: Model, scores: Scored) -> None:
        """Add a line of a table."""
        self.runs[name] = run
        self.students[name] = student
        self.scores[name] = scores


def add_arms(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds) -> Arms:
    """Add the students that the config's ablations ask for; those of the rounds come first."""
    arms = Arms()
    for name, model in rounds.models.items():
        arms.add(name, StudentRun(table="rounds", kind=name.upper()), model, rounds.scores[name])
    if "quality" in config.ablate:
        _quality(r, config, data, rounds, arms)
    if "sources" in config.ablate:
        _sources(r, config, data, rounds, arms)
    if "messages" in config.ablate:
        _messages(r, config, data, rounds, arms)
    if "scaling" in config.ablate:
        _scaling(r, config, data, rounds, arms)
    return arms


def add_report(
    r: Recipe,
    config: HumpbackConfig,
    data: Data,
    rounds: Rounds,
    arms: Arms,
    audits: Mapping[str, Ref],
) -> None:
    """Add the report page."""
    page = HumpbackPageConfig(
        title=r.name,
        runs=arms.runs,
        asked_under=config.asked_under,
    )
    student = Use(Local(name=STUDENT), rounds.models["m0"])
    augmented: dict[str, Ref] = {"all augmented": data.augmented}
    if "backward" in config.ablate:
        base, segments = Use(Local(name="base"), data.base), list(data.segments.values())[-1]
        augmented["base asked directly"] = r.add(
            "augmented-base", backtranslate, config.backtranslate, segments=segments, model=base
        )
    trips: dict[str, Ref] = {
        name: r.add(trip, round_trip, RoundTripConfig(), pairs=each, model=student)
        for (name, each), trip in zip(augmented.items(), TRIPS, strict=False)
    }
    r.add(
        "report",
        humpback_page,
        page,
        seeds=data.seeds,
        augmented=augmented,
        rated=rounds.rated,
        gates=rounds.gates,
        kept=rounds.kept,
        promotions=rounds.promotions,
        students=arms.students,
        accuracy=taken(arms.scores, "accuracy"),
        held_out=taken(arms.scores, "held_out"),
        graded=arms.graded,
        steps=data.segments,
        audits=audits,
        trips=trips,
        **data.declared,
    )


def _quality(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """Web pairs alone, N of each grade: does quality or quantity count? (Figure 3, v1)."""
    bases = {MAIN: data.base} | {
        name: add_base(r.within(f"{name}."), student) for name, student in config.students.items()
    }
    least, most = config.quality_rows
    for point in (each for each in config.points if least <= each.num_rows <= most):
        for grade, score in GRADES.items():
            name = f"{grade.replace(' ', '-').lower()}-{point.num_rows}"
            chosen = KeepConfig(
                min_score=score,
                num_rows=point.num_rows,
                fewer=True,
                take="random",
                gate=config.keep.gate,
            )
            pairs = r.add(
                f"quality.{name}", keep, chosen,
                rated=rounds.rated[rounds.last], gate=rounds.gates[rounds.last],
            )  # fmt: skip
            for size, base in bases.items():
                run = StudentRun(table="quality", kind=grade, student=size, num_rows=point.num_rows)
                how = at_point(config.train, config.row_tokens, point, 0)
                student = f"{size}.{name}"
                arms.graded[student] = pairs
                _learn(r, config, data, arms, run, student, {grade: pairs}, how, base)


def _sources(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """Seeds alone, web pairs alone, both; all with the settings of the rounds (Figure 7, v1)."""
    kept, every = rounds.best_kept, KeepConfig()
    uncurated = r.add("sources.uncurated", keep, every, rated=data.augmented)
    seed_pairs: dict[str, Ref] = {"seeds": data.seeds}
    given: dict[str, dict[str, Ref]] = {
        "seeds": seed_pairs,
        "curated": {"curated": kept},
        "uncurated": {"uncurated": uncurated},
        "seeds and uncurated": {**seed_pairs, "uncurated": uncurated},
        "seeds and curated": {**seed_pairs, "curated": kept},
    }
    for kind, pairs in given.items():
        run = StudentRun(table="sources", kind=kind)
        name = f"sources.{kind.replace(' ', '-')}"
        _learn(r, config, data, arms, run, f"{name}.student", pairs, config.train)


def _messages(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """Tags in training and in inference (Table 5, v3); the tagged student is the best one."""
    asked = {"seed": config.forward.seed_message, "none": ""}
    run = StudentRun(table="messages", kind="tags, asked under both")
    arms.add("best-under-both", run, rounds.best, rounds.best_scores)
    for kind, message in asked.items():
        run = StudentRun(table="messages", kind=f"tags, asked under {kind}")
        under = f"best-under-{kind}"
        scores = add_scores(r, config, data, under, rounds.best, message)
        arms.add(under, run, rounds.best, scores)
    rows = _untagged(r, data, rounds)
    student = r.add("untagged", tune, config.train, base=data.base, answers={"pairs": rows})
    scores = add_scores(r, config, data, "untagged", student, "")
    run = StudentRun(table="messages", kind="no tags, asked under none")
    arms.add("untagged", run, student, scores)


def _untagged(r: Recipe, data: Data, rounds: Rounds) -> Model:
    """Add the rows of the best student without system messages."""
    plain = ForwardConfig(seed_message="", web_message="")
    pairs: dict[str, Ref] = {"seeds": data.seeds}
    rows: Model = r.add("untagged.rows-m0", format_pairs, plain, pairs=pairs)
    for name, by in rounds.promotions.items():
        both = {**pairs, "curated": rounds.kept[name]}
        after = r.add(f"untagged.rows-{name}", format_pairs, plain, pairs=both)
        rows = Chosen(by, before=rows, after=after)
    return rows


def _scaling(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """The same sizes and steps for every data set (Table 3, v1)."""
    for each in config.scaling:
        whole = _set(r, each, data, rounds)
        for point, seed in _points(config, each.max_rows):
            size = SplitConfig(
                held_out_every_nth=config.held_out_every_nth,
                num_rows=point.num_rows,
                seed=seed,
                contamination=config.pages.contamination,
            )
            name = f"scaling.{each.name}-{point.num_rows}.{seed}"
            clean = {"items": data.items} if data.items else {}
            pairs = r.add(name, split, size, pairs=whole, **clean)
            run = StudentRun(table="scaling", kind=each.name, num_rows=point.num_rows, seed=seed)
            how = at_point(config.train, config.row_tokens, point, seed)
            _learn(r, config, data, arms, run, f"{name}.student", {each.name: pairs}, how)


def _set(r: Recipe, each: ScalingSet, data: Data, rounds: Rounds) -> dict[str, Ref]:
    name = f"scaling.{each.name}"
    if each.seeds is not None:
        folder = add_folder(r, each.seeds, name)
        return {each.name: r.add(name, read_seeds, each.seeds.read, folder=folder)}
    if each.collection is not None:
        queries = add_collection(r.within(f"{name}."), each.collection, 0)
        return {each.name: r.add(name, queries_to_pairs, NoConfig(), queries={each.name: queries})}
    return {"seeds": data.seeds, "curated": rounds.best_kept}


def _points(config: HumpbackConfig, most: int | None) -> Iterator[tuple[Point, int]]:
    for seed in config.scaling_seeds:
        for point in config.points:
            if most is None or point.num_rows <= most:
                yield point, seed


def at_point(train: TuneConfig, row_tokens: int, point: Point, seed: int) -> TuneConfig:
    """Return the settings of training with the budget of a point."""
    batch_tokens = point.batch_rows * row_tokens
    changes = {
        "tokens": point.steps * batch_tokens,
        "epochs": None,
        "batch_tokens": batch_tokens,
        "seed": seed,
    }
    return train.model_copy(update=changes)


def _learn(
    r: Recipe,
    config: HumpbackConfig,
    data: Data,
    arms: Arms,
    run: StudentRun,
    name: str,
    pairs: Mapping[str, Ref],
    how: TuneConfig,
    base: RecipeStep | Source | None = None,
) -> None:
    student = add_student(r, config, name, base or data.base, pairs, how)
    arms.add(name, run, student, add_scores(r, config, data, name, student))
