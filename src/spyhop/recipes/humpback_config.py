"""Settings of the Humpback recipe."""

from typing import Literal

from pydantic import Field, model_validator

from spyhop.augment import BacktranslateConfig, ForwardConfig
from spyhop.collect import FetchConfig, SeedsConfig
from spyhop.corpus import SegmentConfig
from spyhop.curate import (
    A5,
    GateConfig,
    KeepConfig,
    KeepGood,
    LabelsConfig,
    LikelihoodConfig,
    RateConfig,
    check_repeats,
)
from spyhop.evaluate import MeasureConfig, SealConfig
from spyhop.recipe.promote import PromoteConfig
from spyhop.recipes.inputs import AuditJudge, Student, Suite, check_judged, one_of
from spyhop.recipes.mixture import Collection, Place
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.text.contamination import ContaminationConfig
from spyhop.text.overlap import NearConfig
from spyhop.train import TuneConfig

Ablation = Literal["backward", "quality", "sources", "messages", "scaling"]
"""The untrained base in place of the backward model, asked in the same words; curated and uncurated
pairs of growing number, at every student's size; seeds alone, web pairs alone and both; the tagging
system messages; scaling coefficients of data sets."""


class Point(Config):
    """Training length for a number of rows; the same for every data set."""

    num_rows: int = Field(gt=0)
    """Training rows."""
    batch_rows: int = Field(32, gt=0)
    """Rows of a batch."""
    steps: int = Field(gt=0)
    """Training steps."""


def paper_points() -> tuple[Point, ...]:
    """Return the paper's sizes with their batches and steps (Table 18 of version 3)."""
    small = ((100, 30), (800, 300), (1600, 600))
    large = ((3200, 500), (6400, 600), (12_800, 600), (25_600, 1200), (51_200, 1600))
    return (
        *(Point(num_rows=num, batch_rows=8, steps=steps) for num, steps in small),
        *(Point(num_rows=num, batch_rows=32, steps=steps) for num, steps in large),
    )


class SeedSet(Place):
    """A set of seed pairs."""

    read: SeedsConfig


class Pages(Config):
    """Web pages, and how they are cut into segments."""

    inputs: tuple[InputPath, ...] = ()
    """Archives, folders of pages, JSON lines, Parquet tables, or lists of archives."""
    fetch: FetchConfig | None = None
    """Archives elsewhere, in place of `inputs`; fetched once."""
    segment: SegmentConfig = SegmentConfig()
    near: NearConfig = NearConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    """Against the items of `suites`."""
    num_segments: int | None = Field(None, gt=0)
    """Segments to draw after filtering. Default: all."""

    _one_place = model_validator(mode="after")(one_of("inputs", "fetch"))


class Rater(Config):
    """Rating of pairs, by a judge or by likelihood."""

    by: Literal["judge", "likelihood"] = "judge"
    """How pairs are rated. `judge`: a verdict on the five-point scale. `likelihood`: for students
    that are too small to judge."""
    file: InputPath | None = None
    """A model's file (TOML) or folder that rates in place of the student. It rates every round
    alike, so there is one round then."""
    judge: RateConfig = RateConfig()
    likelihood: LikelihoodConfig = LikelihoodConfig()
    """An empty system message is that of the seeds."""


class ScalingSet(Config):
    """A data set whose scaling coefficient is measured: one of seeds, collection or own."""

    name: str
    """Name of the curve in the report."""
    seeds: SeedSet | None = None
    collection: Collection | None = None
    """Queries with their bare gold answers, such as raw FLAN."""
    own: bool = False
    """The seeds and the pairs that were kept."""
    max_rows: int | None = Field(None, gt=0)
    """Points up to this size, where the set is smaller than the largest of them."""

    _one_origin = model_validator(mode="after")(one_of("seeds", "collection", "own"))


class HumpbackConfig(Config):
    """Settings of the `humpback` recipe."""

    seeds: tuple[SeedSet, ...] = Field(min_length=1)
    held_out_every_nth: int = Field(10, ge=0)
    """Hold out 1/n of the seed instructions for measuring (by hash); 0 holds out none."""
    pages: Pages
    student: Student
    train: TuneConfig
    """Of the students of all rounds: always from the base, never from one another."""
    train_seed: TuneConfig | None = None
    """Training of the backward model and of the first student, which see the seeds alone. Default:
    `train`."""
    backtranslate: BacktranslateConfig = BacktranslateConfig()
    forward: ForwardConfig = ForwardConfig()
    """System messages that distinguish seed pairs from web pairs."""
    rate: Rater = Rater()
    labels: InputPath | None = None
    """Human labels for some pairs, to measure precision and recall of the curator."""
    read_labels: LabelsConfig = LabelsConfig()
    gate: GateConfig = GateConfig()
    keep: KeepGood = KeepConfig(min_score=A5)
    rounds: int = Field(2, ge=1)
    """Rounds of rating, keeping and training."""
    promote: PromoteConfig = PromoteConfig()
    """A student that is not better is not promoted."""
    promote_by: Literal["accuracy", "held_out"] = "accuracy"
    """Answers to the items of `suites`, or the likelihood of held-out seed responses."""
    suites: tuple[Suite, ...] = ()
    measure: MeasureConfig = MeasureConfig()
    """An empty system message is both tagging messages joined, as in the paper."""
    sealed: SealConfig | None = None
    judge: AuditJudge = None
    ablate: tuple[Ablation, ...] = ()
    """Further students, as `--ablate` names them."""
    points: tuple[Point, ...] = paper_points()
    """Sizes and steps of `quality` and `scaling`."""
    quality_rows: tuple[int, int] = (3200, 25_600)
    """Smallest and largest size of the points that `quality` takes; the paper's range. A grade
    with fewer pairs gives all that it has, and the report says how many."""
    row_tokens: int = Field(450, gt=0)
    """Tokens that a row of `points` stands for, as training counts its batches in tokens."""
    students: dict[str, Student] = Field(default_factory=dict)
    """Further students for `quality`, by name: other sizes of the base."""
    scaling: tuple[ScalingSet, ...] = ()
    scaling_seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Each draws its own rows and order of training."""

    @model_validator(mode="after")
    def _can_be_judged(self) -> "HumpbackConfig":
        has = {"accuracy": bool(self.suites), "held_out": self.held_out_every_nth > 0}
        if self.promote.rule != "always" and not has[self.promote_by]:
            raise ValueError(
                f"promote_by = {self.promote_by!r} has nothing to compare by; add [[suites]], set "
                'promote_by = "held_out", or promote.rule = "always"'
            )
        if "scaling" in self.ablate and not self.scaling:
            raise ValueError("the ablation scaling needs data sets: [[scaling]]")
        if self.rate.file is not None and self.rounds > 1:
            raise ValueError(
                f"rate.file is the judge of all {self.rounds} rounds, so the second would be the "
                "first again; set rounds = 1, or remove rate.file and let the students rate"
            )
        check_judged(self.judge, self.suites)
        if self.rate.by == "judge":
            num = self.rate.judge.num_repeated
            check_repeats(self.gate, self.keep, num, "rate.judge.num_repeated")
        return self

    @property
    def asked_under(self) -> str:
        """System message at inference: both tags, which training never shows together."""
        both = (self.forward.seed_message, self.forward.web_message)
        return self.measure.system_message or " ".join(text for text in both if text)
