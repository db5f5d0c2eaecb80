"""Backtranslate your own texts: a model writes the instruction that each text answers."""

from collections.abc import Mapping
from pathlib import Path

from spyhop.augment import BacktranslateConfig, backtranslate
from spyhop.augment.backtranslate import ReadSegmentsConfig, read_segments
from spyhop.collect.pairs import PAIRS, LinesConfig, write_lines
from spyhop.recipe.graph import Recipe, Source
from spyhop.recipes.inputs import served
from spyhop.report import ReportConfig, page
from spyhop.schema import Config
from spyhop.settings import InputPath
from spyhop.store import Artifact
from spyhop.store.atomic import export_file

SEGMENTS, WRITTEN, FILE = "segments", "pairs", "file"
"""The steps, in order."""


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


def export_results(made: Mapping[str, Artifact], out: Path) -> str:
    """Write the pairs to the output folder, and return a summary with the dropped segments."""
    place = export_file(made[FILE].file(PAIRS), out / PAIRS)
    dropped = made[WRITTEN].record.dropped
    reasons = ", ".join(f"{name} {num:,}" for name, num in sorted(dropped.items()))
    num = made[WRITTEN].num_rows
    return f"{place}: {num:,} pairs from {made[SEGMENTS].num_rows:,} segments; dropped: " + (
        reasons or "no segment"
    )
