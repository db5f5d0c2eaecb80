"""Recipes on a person's own rows: answer prompts, backtranslate texts, rate and keep pairs.

Each writes its results in a step, of which a command copies the files to its output folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from spyhop import curate
from spyhop.augment import AnswerConfig, BacktranslateConfig, answer, backtranslate
from spyhop.augment.backtranslate import ReadSegmentsConfig, read_segments
from spyhop.augment.export import RESERVED, STEM, ExportConfig, export
from spyhop.collect.messages import MessagesConfig, read_prompts
from spyhop.collect.pairs import PAIRS, GivenPairsConfig, LinesConfig, read_pairs, write_lines
from spyhop.collect.shapes import Shape
from spyhop.recipe.graph import Recipe, Ref, Source
from spyhop.recipes.inputs import served
from spyhop.report import ReportConfig, page
from spyhop.schema import Config, Finding
from spyhop.settings import InputPath
from spyhop.store import Artifact
from spyhop.store.atomic import export as copy_out

PROMPTS, ANSWERS, EXPORT = "prompts", "answers", "export"
SEGMENTS, WRITTEN, FILE = "segments", "pairs", "file"
GIVEN, RATED, RATINGS, GATE, KEPT = "pairs", "rated", "ratings", "gate", "kept"
"""Steps of `answer`, `backtranslate` and `curate`, whose ratings are written before the gate can
refuse them."""
ANSWER_FILES = (f"{STEM}.jsonl", f"{STEM}.parquet")
"""One of which `export_answers` writes, by the form."""
RATED_FILE, KEPT_FILE = "rated.jsonl", "kept.jsonl"


class AnsweringConfig(Config):
    """Settings of the `answer` recipe."""

    prompts: InputPath
    """File or folder of rows: JSON, CSV, TSV, Parquet, or a data set that `datasets` saved."""
    shape: Shape | None = None
    """Shape of the rows, such as `messages` or `alpaca`. Default: each row's own, by its keys."""
    teacher: InputPath
    """A teacher's file (TOML), or a folder of weights."""
    answers: AnswerConfig = AnswerConfig()
    format: Literal["", "jsonl"] = ""
    """Output format; default: Parquet for prompts in Parquet, else JSONL."""


def answering(config: AnsweringConfig, name: str = "answer") -> Recipe:
    """Generate a teacher's answers to your own prompts, in the same format."""
    r = Recipe(name)
    file = Source(config.prompts)
    prompts = r.add(
        PROMPTS, read_prompts, MessagesConfig(shape=config.shape, reserved=RESERVED), file=file
    )
    answers = r.add(
        ANSWERS, answer, config.answers, prompts=prompts, teacher=served(config.teacher)
    )
    output = ExportConfig(format=config.format, num_samples=config.answers.num_samples)
    r.add(EXPORT, export, output, file=file, prompts=prompts, answers=answers)
    r.add("report", page, ReportConfig(title=r.name), answers={"answers": answers})
    return r


def export_answers(made: Mapping[str, Artifact], out: Path) -> str:
    """Write the answers to the output folder, and return a summary with outcomes and cost."""
    answers, exported = made[ANSWERS].record, made[EXPORT]
    (file,) = exported.path.glob(f"{STEM}.*")
    place = copy_out(exported.file(file.name), out / file.name)
    counts = exported.record.counts
    outcomes, failed = (
        {name.removeprefix(kind): num for name, num in by.items() if name.startswith(kind) and num}
        for kind, by in (("outcome/", answers.counts), ("failed/", counts))
    )
    notes = [f"{name} {num:,}" for name, num in outcomes.items()]
    if errors := [f"{name}: {num:,}" for name, num in failed.items() if name not in outcomes]:
        notes.append(f"errors {', '.join(errors)}")
    if dropped := sum(answers.dropped.values()):
        notes.append(f"dropped {dropped:,}")
    notes.append(f"${answers.usage.get('usd', 0.0):,.4f}")
    return f"{place}: {counts.get('rows', 0):,} rows; {'; '.join(notes)}"


class BacktranslatingConfig(Config):
    """Settings of the `backtranslate` recipe."""

    segments: InputPath
    """File or folder of JSONL, CSV or Parquet: rows with a `text`; or the folder of a step of
    `spyhop segment`, such as `runs/segments/distinct`."""
    read: ReadSegmentsConfig = ReadSegmentsConfig()
    model: InputPath
    """A teacher's file (TOML), or a folder of weights."""
    backtranslate: BacktranslateConfig = BacktranslateConfig()


def backtranslating(config: BacktranslatingConfig, name: str = "backtranslate") -> Recipe:
    """Write an instruction for each of your own texts."""
    r = Recipe(name)
    given = r.add(SEGMENTS, read_segments, config.read, folder=Source(config.segments))
    model = served(config.model)
    made = r.add(WRITTEN, backtranslate, config.backtranslate, segments=given, model=model)
    r.add(FILE, write_lines, LinesConfig(file=PAIRS), rows=made)
    r.add("report", page, ReportConfig(title=r.name), pairs={"pairs": made})
    return r


def export_pairs(made: Mapping[str, Artifact], out: Path) -> str:
    """Write the pairs to the output folder, and return a summary with the dropped segments."""
    place = copy_out(made[FILE].file(PAIRS), out / PAIRS)
    dropped = made[WRITTEN].record.dropped
    reasons = ", ".join(f"{name} {num:,}" for name, num in sorted(dropped.items())) or "no segment"
    num, of = made[WRITTEN].num_rows, made[SEGMENTS].num_rows
    return f"{place}: {num:,} pairs from {of:,} segments; dropped: {reasons}"


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
        words, how = Source(config.labels), config.read_labels
        people["labels"] = r.add("labels", curate.read_labels, how, folder=words, pairs=given)
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


def export_kept(made: Mapping[str, Artifact], out: Path) -> str:
    """Write rated and kept pairs to the output folder, and return the gate's findings."""
    rated = copy_out(made[RATINGS].file(PAIRS), out / RATED_FILE)
    kept = copy_out(made[FILE].file(PAIRS), out / KEPT_FILE)
    lines = [
        f"{'ok ' if finding.is_passed else 'BAD'}  {finding.id}: {finding.text}"
        for finding in made[GATE].rows(Finding)
    ]
    lines.append(f"{rated}: {made[RATED].num_rows:,} rated pairs")
    lines.append(f"{kept}: {made[KEPT].num_rows:,} kept")
    return "\n".join(lines)
