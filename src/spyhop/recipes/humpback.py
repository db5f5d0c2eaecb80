"""Humpback: rounds of self-augmentation and self-curation, from seed pairs and web pages.

Source: Humpback (arXiv:2308.06259): a backward model writes instructions for segments, the student
rates the pairs, the best ones and the seeds train the next student, who rates again. Further
students are the paper's ablations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from spyhop.augment import ForwardConfig, backtranslate, format_pairs
from spyhop.collect import read_seeds
from spyhop.curate import A4, A5, KeepConfig, SplitConfig, keep, queries_to_pairs, split
from spyhop.evaluate.likelihood import RoundTripConfig, round_trip
from spyhop.models import Local
from spyhop.recipe.graph import Chosen, Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.evaluating import add_audits
from spyhop.recipes.humpback_config import HumpbackConfig, Point, ScalingSet
from spyhop.recipes.inputs import add_base, served
from spyhop.recipes.mixture import add_collection, add_folder
from spyhop.recipes.rounds import STUDENT, Data, Model, Rounds, Scored, add_data, add_rounds, taken
from spyhop.report import (
    DatasetConfig,
    HumpbackPageConfig,
    StudentRun,
    dataset,
    humpback_page,
)
from spyhop.schema import NoConfig
from spyhop.train import TuneConfig, tune
from spyhop.train.release import ReleaseConfig, release, with_title

GRADES: dict[str, float | None] = {"no curation": None, "A4": A4, "A5": A5}
"""Rows of the table of quality against quantity, with the score that a pair must have."""
TRIPS = ("round-trip", "round-trip-base")
MAIN = "main"
"""The recipe's own student, among those of other sizes."""


def humpback(config: HumpbackConfig, name: str = "humpback") -> Recipe:
    """Rounds on seed pairs and web pages: write instructions, rate, keep, train, compare."""
    r = Recipe(name)
    data = add_data(r, config)
    rounds = add_rounds(data)
    arms = Arms(data, rounds)
    for model_name, model in rounds.models.items():
        run = StudentRun(table="rounds", kind=model_name.upper())
        arms.add(model_name, run, model, rounds.scores[model_name])
    for ablation, add in _ABLATIONS.items():
        if ablation in config.ablate:
            add(arms)
    _add_release(data, rounds)
    _add_report(arms, _audits(data, rounds))
    return r


@dataclass(slots=True)
class Arms:
    """Lines of the page's tables, by name: a student with its scores."""

    data: Data
    rounds: Rounds
    runs: dict[str, StudentRun] = field(default_factory=dict)
    students: dict[str, Model] = field(default_factory=dict)
    scores: dict[str, Scored] = field(default_factory=dict)
    graded: dict[str, RecipeStep] = field(default_factory=dict)
    """Pairs that the students of the table `quality` were trained on."""

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
    ) -> None:
        """Add a student of these pairs, its scores and its line."""
        student = self.data.student(name, pairs, how, base)
        self.add(name, run, student, self.data.measure(name, student))


def _audits(data: Data, rounds: Rounds) -> dict[str, Ref]:
    """Add the imitation audit of the best student; its teacher is the text it was trained on."""
    student = rounds.best_scores.get("accuracy")
    if data.config.judge is None or student is None:
        return {}
    base = data.measure("base", data.base)["accuracy"]
    rows = {"pairs": data.r.step(f"{rounds.last}.rows")}
    return add_audits(data.r, [served(data.config.judge)], data.items, base, student, rows)


def _add_report(arms: Arms, audits: Mapping[str, Ref]) -> None:
    data, rounds, r, config = arms.data, arms.rounds, arms.data.r, arms.data.config
    student = Use(Local(name=STUDENT), rounds.models["m0"])
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
    page = HumpbackPageConfig(title=r.name, runs=arms.runs, asked_under=config.asked_under)
    r.add(
        "report", humpback_page, page, seeds=data.seeds, augmented=augmented, rated=rounds.rated,
        gates=rounds.gates, kept=rounds.kept, promotions=rounds.promotions, students=arms.students,
        accuracy=taken(arms.scores, "accuracy"), held_out=taken(arms.scores, "held_out"),
        graded=arms.graded, steps=data.segments, audits=audits, trips=trips, **data.declared,
    )  # fmt: skip


def _add_release(data: Data, rounds: Rounds) -> None:
    """Add the folders to give away: the best student's rows, and the student."""
    r, answers = data.r, {"pairs": rounds.best_rows}
    given = r.add("dataset", dataset, DatasetConfig(title=r.name), answers=answers)
    scored = rounds.best_scores.get("accuracy")
    known = {} if scored is None else {"scores": scored}
    r.add(
        "model", release, with_title(ReleaseConfig(), r.name), model=rounds.best,
        base=data.base, answers=answers, data=given, **known,
    )  # fmt: skip


def _quality(arms: Arms) -> None:
    """Web pairs alone, N of each grade: does quality or quantity count? (Figure 3, v1)."""
    r, config, rounds = arms.data.r, arms.data.config, arms.rounds
    rated, passed = rounds.rated[rounds.last], rounds.gates[rounds.last]
    bases = {MAIN: arms.data.base} | {
        name: add_base(r.within(f"{name}."), student) for name, student in config.students.items()
    }
    least, most = config.quality_rows
    for point in (each for each in config.points if least <= each.num_rows <= most):
        how = at_point(config.train, config.row_tokens, point, 0)
        for grade, score in GRADES.items():
            name = f"{grade.replace(' ', '-').lower()}-{point.num_rows}"
            chosen = KeepConfig(
                min_score=score, num_rows=point.num_rows, fewer=True, take="random",
                gate=config.keep.gate,
            )  # fmt: skip
            pairs = r.add(f"quality.{name}", keep, chosen, rated=rated, gate=passed)
            for size, base in bases.items():
                run = StudentRun(table="quality", kind=grade, student=size, num_rows=point.num_rows)
                arms.graded[f"{size}.{name}"] = pairs
                arms.learn(f"{size}.{name}", run, {grade: pairs}, how, base)


def _sources(arms: Arms) -> None:
    """Seeds alone, web pairs alone, both; all with the settings of the rounds (Figure 7, v1)."""
    data, kept = arms.data, arms.rounds.best_kept
    uncurated = data.r.add("sources.uncurated", keep, KeepConfig(), rated=data.augmented)
    given: dict[str, dict[str, Ref]] = {
        "seeds": {"seeds": data.seeds},
        "curated": {"curated": kept},
        "uncurated": {"uncurated": uncurated},
        "seeds and uncurated": {"seeds": data.seeds, "uncurated": uncurated},
        "seeds and curated": {"seeds": data.seeds, "curated": kept},
    }
    for kind, pairs in given.items():
        name = f"sources.{kind.replace(' ', '-')}.student"
        arms.learn(name, StudentRun(table="sources", kind=kind), pairs, data.config.train)


def _messages(arms: Arms) -> None:
    """Tags in training and in inference (Table 5, v3); the tagged student is the best one."""
    data, rounds = arms.data, arms.rounds
    run = StudentRun(table="messages", kind="tags, asked under both")
    arms.add("best-under-both", run, rounds.best, rounds.best_scores)
    for kind, message in {"seed": data.config.forward.seed_message, "none": ""}.items():
        run = StudentRun(table="messages", kind=f"tags, asked under {kind}")
        under = f"best-under-{kind}"
        arms.add(under, run, rounds.best, data.measure(under, rounds.best, message))
    answers = {"pairs": _untagged(data, rounds)}
    student = data.r.add("untagged", tune, data.config.train, base=data.base, answers=answers)
    run = StudentRun(table="messages", kind="no tags, asked under none")
    arms.add("untagged", run, student, data.measure("untagged", student, ""))


def _untagged(data: Data, rounds: Rounds) -> Model:
    """Add the rows of the best student without system messages."""
    plain = ForwardConfig(seed_message="", web_message="")
    pairs: dict[str, Ref] = {"seeds": data.seeds}
    rows: Model = data.r.add("untagged.rows-m0", format_pairs, plain, pairs=pairs)
    for name, by in rounds.promotions.items():
        both = {**pairs, "curated": rounds.kept[name]}
        after = data.r.add(f"untagged.rows-{name}", format_pairs, plain, pairs=both)
        rows = Chosen(by, before=rows, after=after)
    return rows


def _scaling(arms: Arms) -> None:
    """The same sizes and steps for every data set (Table 3, v1)."""
    data, config = arms.data, arms.data.config
    clean = {"items": data.items} if data.items else {}
    for each in config.scaling:
        whole = _set(arms, each)
        points = [p for p in config.points if each.max_rows is None or p.num_rows <= each.max_rows]
        for seed, point in product(config.scaling_seeds, points):
            size = SplitConfig(
                held_out_every_nth=config.held_out_every_nth, num_rows=point.num_rows, seed=seed,
                contamination=config.pages.contamination,
            )  # fmt: skip
            name = f"scaling.{each.name}-{point.num_rows}.{seed}"
            pairs = data.r.add(name, split, size, pairs=whole, **clean)
            run = StudentRun(table="scaling", kind=each.name, num_rows=point.num_rows, seed=seed)
            how = at_point(config.train, config.row_tokens, point, seed)
            arms.learn(f"{name}.student", run, {each.name: pairs}, how)


def _set(arms: Arms, each: ScalingSet) -> dict[str, Ref]:
    name, r = f"scaling.{each.name}", arms.data.r
    if each.seeds is not None:
        folder = add_folder(r, each.seeds, name)
        return {each.name: r.add(name, read_seeds, each.seeds.read, folder=folder)}
    if each.collection is not None:
        queries = add_collection(r.within(f"{name}."), each.collection, 0)
        return {each.name: r.add(name, queries_to_pairs, NoConfig(), queries={each.name: queries})}
    return {"seeds": arms.data.seeds, "curated": arms.rounds.best_kept}


_ABLATIONS = {"quality": _quality, "sources": _sources, "messages": _messages, "scaling": _scaling}


def at_point(train: TuneConfig, row_tokens: int, point: Point, seed: int) -> TuneConfig:
    """Return the settings of training with the budget of a point."""
    batch_tokens = point.batch_rows * row_tokens
    budget = {"tokens": point.steps * batch_tokens, "epochs": None, "batch_tokens": batch_tokens}
    return train.model_copy(update={**budget, "seed": seed})
