"""Further students of the Humpback recipe, for the paper's ablations, and the run's report."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from spyhop.augment import ForwardConfig
from spyhop.collect import read_seeds
from spyhop.curate import (
    A4,
    A5,
    KeepConfig,
    PairsConfig,
    SplitConfig,
    keep,
    queries_to_pairs,
    split,
)
from spyhop.recipe.graph import Node, Recipe, Ref, Source
from spyhop.recipes.humpback_config import HumpbackConfig, Point, ScalingSet
from spyhop.recipes.inputs import add_base
from spyhop.recipes.mixture import add_collection
from spyhop.recipes.rounds import Data, Rounds, Scored, add_folder, add_scores, add_student
from spyhop.report import HumpbackPageConfig, StudentRun, humpback_page
from spyhop.train import TuneConfig

GRADES: dict[str, float | None] = {"no curation": None, "A4": A4, "A5": A5}
"""Rows of the table of quality against quantity, with the score that a pair must have."""
MAIN = "main"
"""The recipe's own student, among those of other sizes."""


@dataclass(slots=True)
class Arms:
    """Students with what they show: equal places of the three lists belong together."""

    runs: list[StudentRun] = field(default_factory=list)
    students: list[Node] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    graded: list[Node] = field(default_factory=list)
    """What the students of the table `quality` read, in their order."""

    def add(self, run: StudentRun, student: Node, scores: Scored) -> None:
        """Add a line of a table."""
        self.runs.append(run)
        self.students.append(student)
        self.scores.append(scores)


def add_arms(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds) -> Arms:
    """Add the students that the config's ablations ask for; those of the rounds come first."""
    arms = Arms()
    for n, (model, scores) in enumerate(zip(rounds.models, rounds.scores, strict=True)):
        arms.add(StudentRun(table="rounds", kind=f"M{n}"), model, scores)
    if "quality" in config.ablate:
        _quality(r, config, data, rounds, arms)
    if "sources" in config.ablate:
        _sources(r, config, data, rounds, arms)
    if "messages" in config.ablate:
        _messages(r, config, data, rounds, arms)
    if "scaling" in config.ablate:
        _scaling(r, config, data, rounds, arms)
    return arms


def add_report(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """Add the report page."""
    page = HumpbackPageConfig(
        title=config.name,
        runs=tuple(arms.runs),
        num_kept=len(rounds.kept),
        asked_under=config.asked_under,
        has_accuracy=bool(data.items),
        has_held_out=bool(data.held_out),
    )
    r.add(
        "report",
        humpback_page,
        page,
        seeds=data.seeds,
        augmented=data.augmented,
        rated=list[Ref](rounds.rated),
        gates=list[Ref](rounds.gates),
        kept=list[Ref](rounds.kept),
        promotions=list[Ref](rounds.promotions),
        students=list[Ref](arms.students),
        accuracy=[ref for each in arms.scores for ref in each.accuracy],
        held_out=[ref for each in arms.scores for ref in each.held_out],
        graded=list[Ref](arms.graded),
        steps=list[Ref](data.segments),
    )


def _quality(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """Web pairs alone, so many of each grade: does quality or quantity count? (Figure 3, v1)."""
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
                f"quality.{name}", keep, chosen, rated=rounds.rated[-1], gate=rounds.gates[-1]
            )
            for size, base in bases.items():
                run = StudentRun(table="quality", kind=grade, student=size, num_rows=point.num_rows)
                how = _at(config, point, 0)
                arms.graded.append(pairs)
                _learn(r, config, data, arms, run, f"{size}.{name}", [pairs], how, base)


def _sources(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """Seeds alone, web pairs alone, both; all with the settings of the rounds (Figure 7, v1)."""
    kept, every = rounds.kept[-1], KeepConfig()
    uncurated = r.add("sources.uncurated", keep, every, rated=data.augmented)
    given: dict[str, list[Ref]] = {
        "seeds": [data.seeds],
        "curated": [kept],
        "uncurated": [uncurated],
        "seeds and uncurated": [data.seeds, uncurated],
        "seeds and curated": [data.seeds, kept],
    }
    for kind, pairs in given.items():
        run = StudentRun(table="sources", kind=kind)
        name = f"sources.{kind.replace(' ', '-')}"
        _learn(r, config, data, arms, run, f"{name}.student", pairs, config.train)


def _messages(r: Recipe, config: HumpbackConfig, data: Data, rounds: Rounds, arms: Arms) -> None:
    """Tags in training and in inference (Table 5, v3); the tagged student is the last round's."""
    tagged, name = rounds.models[-1], f"m{len(rounds.models) - 1}"
    asked = {"seed": config.forward.seed_message, "none": ""}
    run = StudentRun(table="messages", kind="tags, asked under both")
    arms.add(run, tagged, rounds.scores[-1])
    for kind, message in asked.items():
        run = StudentRun(table="messages", kind=f"tags, asked under {kind}")
        scores = add_scores(r, config, data, f"{name}-under-{kind}", tagged, message)
        arms.add(run, tagged, scores)
    plain = config.model_copy(update={"forward": ForwardConfig(seed_message="", web_message="")})
    pairs: list[Ref] = [data.seeds, rounds.kept[-1]]
    student = add_student(r, plain, "untagged", data.base, pairs, config.train)
    scores = add_scores(r, config, data, "untagged", student, "")
    arms.add(StudentRun(table="messages", kind="no tags, asked under none"), student, scores)


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
            clean: dict[str, list[Ref]] = {"items": data.items} if data.items else {}
            pairs = r.add(name, split, size, pairs=whole, **clean)
            run = StudentRun(table="scaling", kind=each.name, num_rows=point.num_rows, seed=seed)
            how = _at(config, point, seed)
            _learn(r, config, data, arms, run, f"{name}.student", [pairs], how)


def _set(r: Recipe, each: ScalingSet, data: Data, rounds: Rounds) -> list[Ref]:
    name = f"scaling.{each.name}"
    if each.seeds is not None:
        return [r.add(name, read_seeds, each.seeds.read, folder=add_folder(r, each.seeds, name))]
    if each.collection is not None:
        queries = add_collection(r.within(f"{name}."), each.collection, 0)
        return [r.add(name, queries_to_pairs, PairsConfig(), queries=[queries])]
    return [data.seeds, rounds.kept[-1]]


def _points(config: HumpbackConfig, most: int | None) -> Iterator[tuple[Point, int]]:
    for seed in config.scaling_seeds:
        for point in config.points:
            if most is None or point.num_rows <= most:
                yield point, seed


def _at(config: HumpbackConfig, point: Point, seed: int) -> TuneConfig:
    """Return the settings of training with the budget of a point."""
    batch_tokens = point.batch_rows * config.row_tokens
    changes = {
        "tokens": point.steps * batch_tokens,
        "epochs": None,
        "batch_tokens": batch_tokens,
        "seed": seed,
    }
    return config.train.model_copy(update=changes)


def _learn(
    r: Recipe,
    config: HumpbackConfig,
    data: Data,
    arms: Arms,
    run: StudentRun,
    name: str,
    pairs: list[Ref] | list[Node],
    how: TuneConfig,
    base: Node | Source | None = None,
) -> None:
    student = add_student(r, config, name, base or data.base, pairs, how)
    arms.add(run, student, add_scores(r, config, data, name, student))
