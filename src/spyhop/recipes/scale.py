"""What data sets gain by growing: students of N rows each, at equal steps, and their slopes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from spyhop.augment import FilterAnswersConfig, filter_answers
from spyhop.collect import MessagesConfig, read_conversations
from spyhop.collect.shapes import Shape
from spyhop.evaluate import HeldOutConfig, MeasureConfig, measure, score_held_out
from spyhop.evaluate.judging import JudgeConfig, judge
from spyhop.models import Local
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source, Use
from spyhop.recipes.humpback_arms import at_point
from spyhop.recipes.humpback_config import Point
from spyhop.recipes.inputs import DataPlace, Suite, add_items, placed, served
from spyhop.report.humpback_figures import StudentRun
from spyhop.report.scale import ScalePageConfig, scale_page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.train import TuneConfig, tune

BASE = "base"
POINTS = tuple(
    Point(num_rows=num, batch_rows=8, steps=steps)
    for num, steps in ((100, 30), (200, 75), (400, 150), (800, 300))
)
"""The smaller sizes of the Humpback paper's Table 18 (version 3), and two between them."""


class ScaleConfig(Config):
    """Settings of the `scale` recipe."""

    sets: dict[str, InputPath] = Field(min_length=1)
    """Files or folders of training rows, by the name of their curve."""
    shape: Shape | None = None
    """Shape of the rows, such as `messages` or `alpaca`. Default: each row's own, by its keys."""
    base: InputPath
    """A Hugging Face folder of a causal language model; every student starts from it."""
    points: tuple[Point, ...] = POINTS
    """Sizes with their batches and steps, the same for every data set."""
    row_tokens: int = Field(450, gt=0)
    """Tokens that a row of `points` stands for, as training counts its batches in tokens."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Each draws its own rows and order of training."""
    train: TuneConfig = TuneConfig(epochs=1)
    """Training of every student, without a budget: that is the point's."""
    suites: tuple[Suite, ...] = ()
    """Benchmarks whose accuracy is w."""
    data: dict[str, DataPlace] = Field(default_factory=dict)
    """Where each data set is: a folder, a file, or `hf://datasets/OWNER/NAME@COMMIT`."""
    measure: MeasureConfig = MeasureConfig()
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
    base = Source(config.base)
    suites = placed(config.suites, config.data)
    items = add_items(r, suites)
    asked = config.measure.for_tasks(suite.task for suite in suites)
    known: dict[str, Ref] = {}
    if config.held_out is not None:
        rows = r.add("held-out", read_conversations, _read(config), file=Source(config.held_out))
        known["held out"] = rows
    if config.judge is not None:
        model = Use(Local(name=BASE), base)
        known[BASE] = r.add(f"scores-{BASE}", measure, asked, items=items, model=model)
    runs: dict[str, StudentRun] = {}
    found: dict[str, dict[str, Ref]] = {
        "students": {}, "accuracy": {}, "held_out": {}, "win_rate": {}
    }  # fmt: skip
    for kind, path in config.sets.items():
        whole = r.add(f"rows-{kind}", read_conversations, _read(config), file=Source(path))
        for point in config.points:
            for seed in config.seeds:
                student = f"{kind}-{point.num_rows}.{seed}"
                run = StudentRun(table="scaling", kind=kind, num_rows=point.num_rows, seed=seed)
                runs[student] = run
                size = FilterAnswersConfig(num_rows=point.num_rows, seed=seed)
                drawn = r.add(f"{student}.rows", filter_answers, size, answers=whole)
                how = at_point(config.train, config.row_tokens, point, seed)
                model_step = r.add(student, tune, how, base=base, answers={kind: drawn})
                found["students"][student] = model_step
                _measure(r, config, asked, student, model_step, items, known, found)
    page = ScalePageConfig(title=r.name, runs=runs)
    r.add("report", scale_page, page, **{name: each for name, each in found.items() if each})
    return r


def _read(config: ScaleConfig) -> MessagesConfig:
    return MessagesConfig(shape=config.shape)


def _measure(
    r: Recipe,
    config: ScaleConfig,
    asked: MeasureConfig,
    student: str,
    step: RecipeStep,
    items: Mapping[str, Ref],
    known: Mapping[str, Ref],
    found: dict[str, dict[str, Ref]],
) -> None:
    """Add what a student scores by each measure."""
    use = Use(Local(name=student), step)
    if items:
        scores = r.add(f"scores-{student}", measure, asked, items=items, model=use)
        found["accuracy"][student] = scores
    if "held out" in known:
        rows = {"held out": known["held out"]}
        held_out = r.add(
            f"held-out-{student}", score_held_out, HeldOutConfig(), answers=rows, model=use
        )
        found["held_out"][student] = held_out
    if config.judge is not None:
        (questions,) = items.values()
        pair = {BASE: known[BASE], student: scores}
        found["win_rate"][student] = r.add(
            f"verdicts-{student}",
            judge,
            JudgeConfig(reference=BASE),
            questions=questions,
            answers=pair,
            judge=served(Path(config.judge)),
        )
