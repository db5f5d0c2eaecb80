"""Curate your own pairs as in Humpback: a model rates them, and the best are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from spyhop import curate
from spyhop.collect.pairs import PAIRS, GivenPairsConfig, LinesConfig, read_pairs, write_lines
from spyhop.recipe.graph import Recipe, Ref, Source
from spyhop.recipes.inputs import served
from spyhop.report import ReportConfig, page
from spyhop.schema import Config, Finding
from spyhop.settings import InputPath
from spyhop.store import Artifact
from spyhop.store.atomic import export_file

GIVEN, RATED, RATINGS, GATE, KEPT, FILE = "pairs", "rated", "ratings", "gate", "kept", "file"
"""Steps with results; ratings are written before the gate can refuse them."""
RATED_FILE, KEPT_FILE = "rated.jsonl", "kept.jsonl"


class CuratingConfig(Config):
    """Settings of the `curate` recipe."""

    pairs: InputPath
    """File or folder of JSONL, CSV or Parquet: rows of `instruction` and `response`."""
    read: GivenPairsConfig = GivenPairsConfig()
    judge: InputPath
    """A teacher's file (TOML), or a folder of weights."""
    by: Literal["rating", "likelihood"] = "rating"
    """Source of scores: written by the judge (`rating`), or computed likelihoods (`likelihood`)."""
    rate: curate.RateConfig = curate.RateConfig()
    likelihood: curate.LikelihoodConfig = curate.LikelihoodConfig()
    labels: InputPath | None = None
    """Labels by people, for the gate: rows of `good` or `score` beside a pair's `id` or texts."""
    read_labels: curate.LabelsConfig = curate.LabelsConfig()
    gate: curate.GateConfig = curate.GateConfig()
    keep: curate.KeepGood = curate.KeepConfig(min_score=curate.A5)

    @model_validator(mode="after")
    def _can_pass(self) -> "CuratingConfig":
        if self.by == "rating":
            curate.check_repeats(self.gate, self.keep, self.rate.num_repeated, "rate.num_repeated")
        return self


def curating(config: CuratingConfig, name: str = "curate") -> Recipe:
    """Rate your own pairs with a model, check the ratings, and keep pairs by score or number."""
    r = Recipe(name)
    given = r.add(GIVEN, read_pairs, config.read, folder=Source(config.pairs))
    people: dict[str, Ref] = {}
    if config.labels is not None:
        words = Source(config.labels)
        people["labels"] = r.add(
            "labels", curate.read_labels, config.read_labels, folder=words, pairs=given
        )
    if config.by == "rating" and curate.needs_repeats(config.gate, config.keep):
        r.add("enough", curate.check_pair_count, config.gate, pairs=given)
    judge = served(config.judge)
    if config.by == "rating":
        rated = r.add(RATED, curate.rate, config.rate, pairs=given, judge=judge)
    else:
        rated = r.add(RATED, curate.rate_by_likelihood, config.likelihood, pairs=given, model=judge)
    r.add(RATINGS, write_lines, LinesConfig(file=PAIRS), rows=rated)
    passed = r.add(
        GATE, curate.gate, curate.with_threshold(config.gate, config.keep), rated=rated, **people
    )
    kept = r.add(KEPT, curate.keep, config.keep, rated=rated, gate=passed)
    r.add(FILE, write_lines, LinesConfig(file=PAIRS), rows=kept)
    shown = ReportConfig(title=r.name)
    r.add("report", page, shown, pairs={"rated": rated, "kept": kept}, gate=passed)
    return r


def export_results(made: Mapping[str, Artifact], out: Path) -> str:
    """Write rated and kept pairs to the output folder, and return the gate's findings."""
    rated = export_file(made[RATINGS].file(PAIRS), out / RATED_FILE)
    kept = export_file(made[FILE].file(PAIRS), out / KEPT_FILE)
    findings = [
        f"{'ok ' if finding.is_passed else 'BAD'}  {finding.id}: {finding.text}"
        for finding in made[GATE].rows(Finding)
    ]
    return "\n".join(
        [
            *findings,
            f"{rated}: {made[RATED].num_rows:,} rated pairs",
            f"{kept}: {made[KEPT].num_rows:,} kept",
        ]
    )
