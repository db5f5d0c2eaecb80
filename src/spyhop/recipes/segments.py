"""Humpback's unlabelled half: web pages to segments, without duplicates and evaluation items.

Source: Humpback (arXiv:2308.06259), section 2.1.
"""

import gzip
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field

from spyhop.collect.pairs import LinesConfig, write_lines
from spyhop.corpus import SegmentConfig, decontaminate, deduplicate, segment
from spyhop.recipe.graph import Recipe, RecipeStep, Ref, Source
from spyhop.recipes.inputs import Suite, add_items, placed
from spyhop.report import CorpusPageConfig, corpus_page
from spyhop.schema import Config, InputError
from spyhop.settings import InputPath
from spyhop.store import Artifact
from spyhop.store.atomic import export
from spyhop.text.contamination import ContaminationConfig
from spyhop.text.overlap import NearConfig

FILE, SEGMENTS = "file", "segments.jsonl"
"""The step that writes the segments as JSON lines."""
LISTING = (".paths", ".paths.gz")
"""Lists of files, as Common Crawl publishes them; paths are relative to the list."""

_SCHEME = re.compile(r"(?:https?|s3a?|gs|gcs|az|abfss?|hdfs|ftp):")


class SegmentsConfig(Config):
    """Settings of the `segments` recipe."""

    inputs: tuple[InputPath, ...] = Field(min_length=1)
    """Archives, folders of pages, JSON lines, Parquet tables, or lists of archives."""
    segment: SegmentConfig = SegmentConfig()
    near: NearConfig = NearConfig()
    contamination: ContaminationConfig = ContaminationConfig()
    suites: tuple[Suite, ...] = ()
    """Benchmarks whose items must not occur in the segments."""


def segments(config: SegmentsConfig, name: str = "segments") -> Recipe:
    """Web pages to self-contained segments for a backward model."""
    r = Recipe(name)
    items = add_items(r, placed(config.suites))
    pages = page_sources(config.inputs)
    steps = add_segments(r, config.segment, config.near, config.contamination, pages, items)
    page = CorpusPageConfig(title=r.name)
    *_, last = steps.values()
    r.add(FILE, write_lines, LinesConfig(file=SEGMENTS), rows=last)
    r.add("report", corpus_page, page, steps=steps)
    return r


def export_results(made: Mapping[str, Artifact], out: Path) -> str:
    """Write the segments to the output folder, and return a line that says so."""
    place = export(made[FILE].file(SEGMENTS), out / SEGMENTS)
    return f"{place}: {made[FILE].record.counts.get('rows', 0):,} segments"


def add_segments(
    r: Recipe,
    cutting: SegmentConfig,
    near: NearConfig,
    contamination: ContaminationConfig,
    pages: Mapping[str, Ref],
    items: Mapping[str, Ref],
) -> dict[str, RecipeStep]:
    """Add the steps from pages to clean segments and return them; the last one holds them."""
    cut = r.add("segments", segment, cutting, pages=pages)
    distinct = r.add("distinct", deduplicate, near, segments=cut)
    steps = {"segments": cut, "distinct": distinct}
    if items:
        steps["clean"] = r.add(
            "clean", decontaminate, contamination, segments=distinct, items=items
        )
    return steps


def page_sources(inputs: Iterable[Path]) -> dict[str, Ref]:
    """Return the files of inputs by their path, lists of archives expanded."""
    return {str(path): Source(path) for given in inputs for path in expand(given)}


def expand(path: Path) -> list[Path]:
    """Return the input itself, or the files that a list of archives names.

    Raises:
        InputError: If the list cannot be read, or a file of it is not here, or the input is an
            address. Nothing is fetched.
    """
    if remote := next((part for part in path.parts if _SCHEME.fullmatch(part)), ""):
        address = path.as_posix().partition(remote)[2].lstrip("/")
        raise InputError(
            f"{remote}//{address}: nothing is fetched; download it first (Common Crawl: "
            f"https://data.commoncrawl.org/<path of the list>) and name the file"
        )
    if not path.name.endswith(LISTING):
        return [path]
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found = [path.parent / line for line in text.decode().splitlines() if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    missing = [each for each in found if not each.is_file()]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of its {len(found)} files are not here, such as {missing[0]}; "
            "nothing is fetched: put them there first"
        )
    return found
