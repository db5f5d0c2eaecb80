"""What data sets gain by growing: students of N rows each, at equal steps, and their slopes."""

from itertools import product
from typing import Any

from pydantic import Field, model_validator

from spyhop.augment import FilterAnswersConfig, filter_answers
from spyhop.collect import MessagesConfig, read_conversations
from spyhop.evaluate import HeldOutConfig, MeasureConfig, measure, score_held_out
from spyhop.evaluate.judging import JudgeConfig, judge
from spyhop.models import Local
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.humpback import at_point
from spyhop.recipes.humpback_config import Point
from spyhop.recipes.inputs import Suite, add_items, placed, served
from spyhop.report.students import ScalePageConfig, StudentRun, scale_page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.train import TuneConfig, tune

BASE = "base"
ROW_TOKENS = 450
"""Tokens that a row of a point's batch stands for, as training counts its batches in tokens."""
POINTS = tuple(
    Point(num_rows=num, batch_rows=8, steps=steps)
    for num, steps in ((100, 30), (200, 75), (400, 150), (800, 300))
)
"""The smaller sizes of the Humpback paper's Table 18 (version 3), and two between them."""


class ScaleConfig(Config):
    """Settings of the `scale` recipe."""

    sets: dict[str, InputPath] = Field(min_length=1)
    """Files or folders of training rows, by the name of their curve."""
    base: InputPath
    """A Hugging Face folder of a causal language model; every student starts from it."""
    points: tuple[Point, ...] = POINTS
    """Sizes with their batches and steps, the same for every data set."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Each draws its own rows and order of training."""
    train: TuneConfig = TuneConfig(epochs=1)
    """Training of every student, without a budget: that is the point's."""
    suites: tuple[Suite, ...] = ()
    """Benchmarks whose accuracy is w."""
    held_out: InputPath | None = None
    """Rows of none of the sets; the log-likelihood of their responses is w."""
    judge: InputPath | None = None
    """A model that judges the students' answers to the one suite against the base's; the win rate
    is w."""

    @model_validator(mode="before")
    @classmethod
    def _budget(cls, values: Any) -> Any:  # noqa: ANN401 (plain TOML)
        """Fill in the budget that the points replace; refuse one that they would ignore."""
        if not isinstance(values, dict) or not isinstance(values.get("train"), dict):
            return values
        if given := {"tokens", "epochs"} & values["train"].keys():
            raise ValueError(f"train.{min(given)}: the points say how long to train")
        return {**values, "train": {**values["train"], "epochs": 1.0}}

    @model_validator(mode="after")
    def _has_measure(self) -> "ScaleConfig":
        if not self.suites and self.held_out is None:
            raise ValueError("nothing to measure by; add [[suites]] or held_out")
        if self.judge is not None and len(self.suites) != 1:
            raise ValueError(f"judge needs one suite of questions, not {len(self.suites)}")
        if len({point.num_rows for point in self.points}) < 2:
            raise ValueError("a slope needs points of two sizes or more")
        return self


def scale(config: ScaleConfig, name: str = "scale") -> Recipe:
    """Compare data sets by what they gain as they grow: students at equal steps, and slopes."""
    r = Recipe(name)
    base, reading = Source(config.base), MessagesConfig()
    suites = placed(config.suites)
    items = add_items(r, suites)
    asked = MeasureConfig().for_tasks(suite.task for suite in suites)
    held_out: dict[str, Ref] = {}
    if config.held_out is not None:
        rows = r.add("held-out", read_conversations, reading, file=Source(config.held_out))
        held_out["held out"] = rows
    runs: dict[str, StudentRun] = {}
    students: dict[str, RecipeStep] = {}
    for kind, path in config.sets.items():
        whole = r.add(f"rows-{kind}", read_conversations, reading, file=Source(path))
        for point, seed in product(config.points, config.seeds):
            student = f"{kind}-{point.num_rows}.{seed}"
            size = FilterAnswersConfig(num_rows=point.num_rows, seed=seed)
            drawn = r.add(f"{student}.rows", filter_answers, size, answers=whole)
            how = at_point(config.train, ROW_TOKENS, point, seed)
            students[student] = r.add(student, tune, how, base=base, answers={kind: drawn})
            run = StudentRun(table="scaling", kind=kind, num_rows=point.num_rows, seed=seed)
            runs[student] = run
    found: dict[str, dict[str, Ref]] = {"accuracy": {}, "held_out": {}, "win_rate": {}}
    first: dict[str, RecipeStep | Source] = {} if config.judge is None else {BASE: base}
    for student, model in {**first, **students}.items():
        use = Use(Local(name=student), model)
        if items:
            name = f"scores-{student}"
            found["accuracy"][student] = r.add(name, measure, asked, items=items, model=use)
        if held_out and student != BASE:
            found["held_out"][student] = r.add(
                f"held-out-{student}", score_held_out, HeldOutConfig(), answers=held_out, model=use
            )
    base_scores = found["accuracy"].pop(BASE, None)
    if config.judge is not None and base_scores is not None:
        (questions,), by = items.values(), served(config.judge)
        judging = JudgeConfig(reference=BASE)
        for student, scores in found["accuracy"].items():
            pair = {BASE: base_scores, student: scores}
            found["win_rate"][student] = r.add(
                f"verdicts-{student}", judge, judging, questions=questions, answers=pair, judge=by
            )
    page = ScalePageConfig(title=r.name, runs=runs)
    taken = {name: each for name, each in found.items() if each}
    r.add("report", scale_page, page, students=students, **taken)
    return r
