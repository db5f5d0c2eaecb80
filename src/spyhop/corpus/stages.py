"""The stages: segment pages, drop duplicates, drop contaminated segments, draw some."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, compress
from time import monotonic

from pydantic import Field
from pydantic_core import to_json

from spyhop.corpus.pool import PAGES, Pool, chunks_of, is_done, read_chunk, run_on_ray
from spyhop.corpus.read import Part, parts_of
from spyhop.corpus.work import PAGE, SegmentConfig
from spyhop.schema import Config, InputError, Item, Segment, Unfinished
from spyhop.stage import Context, Estimate, Estimates, Progress, stage
from spyhop.store import Artifact, Artifacts, nested_draw, rows_of
from spyhop.text.contamination import ContaminationConfig, ItemIndex, without_items
from spyhop.text.overlap import Duplicates, NearConfig

NOTE_REASONS = 3
"""Reasons that fit into the line of progress."""
PAGE_BYTES_PER_S = 25_000_000
"""HTML read, cut and judged on one core of a current machine."""
SEGMENT_BYTES = 35_000
"""HTML that a segment takes, on the how-to pages of the benchmark."""
SEGMENTS_PER_S = 3000
"""Searched for duplicates or items, on one core of a current machine."""


def plan_segments(config: SegmentConfig, pages: Estimates) -> Estimate:
    """Estimate from bytes: the number of pages is unknown before they are read."""
    num_bytes = sum(each.num_bytes for each in pages.values())
    return Estimate(rows=num_bytes // SEGMENT_BYTES, seconds=num_bytes / PAGE_BYTES_PER_S)


@stage(version=5, writes=Segment, plan=plan_segments, has_parts=True)
def segment(ctx: Context, config: SegmentConfig, *, pages: Artifacts) -> Iterator[Segment]:
    """Cut pages into segments, part by part, in processes that may be killed.

    Pages and sections that give no segment are dropped with their reason. Finished chunks of a run
    that was stopped are not made again; rows are in the order of the inputs.

    Source: Humpback (arXiv:2308.06259), section 2.1; version 3, appendix E.
    """
    parts = parts_of([each.path for each in pages.values()])
    if not parts:
        raise InputError("the inputs hold no files")
    ctx.parts.mkdir(exist_ok=True)
    live, shard = _Live(ctx, parts), ctx.shard
    mine = {n: part for n, part in enumerate(parts) if shard is None or shard.owns(n)}
    if ctx.runtime.on:
        finished = run_on_ray(mine, config, ctx.parts, ctx.runtime.on, live.add)
    else:
        finished = Pool(mine, config, ctx.parts, ctx.runtime.processes, live.add).run()
    next_number = 0
    for number in finished:  # rows are written while workers go on
        live.add(part=parts[number])
        while shard is None and next_number < len(parts) and is_done(ctx.parts, next_number):
            yield from _rows(ctx, next_number)
            next_number += 1
    if shard and (left := [n for n in range(len(parts)) if not is_done(ctx.parts, n)]):
        names = ", ".join(map(str, sorted({n % shard.total + 1 for n in left})))
        raise Unfinished(f"{len(left)} of {len(parts)} parts are missing, of the shards {names}")
    for number in range(next_number, len(parts)):
        yield from _rows(ctx, number)
    lost = Counter({name: n for name, n in ctx.dropped.items() if name.startswith(PAGE)})
    reasons = ", ".join(f"{name.removeprefix(PAGE)} {n:,}" for name, n in lost.most_common())
    num, num_read = ctx.counts["pages"], ctx.counts["pages"] - lost.total()
    shown = f" ({reasons})" if reasons else ""
    ctx.notice(f"{num:,} pages: {num_read:,} read, {lost.total():,} lost{shown}")


def _rows(ctx: Context, number: int) -> Iterator[Segment]:
    """Yield the segments of a part; its other outcomes are dropped with their reasons."""
    for reason, row in chain.from_iterable(map(read_chunk, chunks_of(ctx.parts, number))):
        if reason == PAGES:
            ctx.count("pages", int(row))
            continue
        ctx.count("sections", int(not reason.startswith(PAGE)))
        if reason:
            ctx.drop(row, reason)
            continue
        segment = Segment.model_validate_json(row)
        ctx.count("toxic", int(segment.is_toxic))
        ctx.count("redacted", segment.num_redacted)
        yield segment


def plan_kept(config: Config, segments: Estimate, **_: object) -> Estimate:
    """As many rows at most; the rate is that of a benchmark on one core."""
    return Estimate(rows=segments.rows, seconds=segments.rows / SEGMENTS_PER_S)


@stage(version=2, writes=Segment, plan=plan_kept)
def deduplicate(ctx: Context, config: NearConfig, *, segments: Artifact) -> Iterator[Segment]:
    """Keep the first of segments that repeat each other, exactly or nearly.

    A dropped one names the row of the input that stays, `kept_row`, and their `similarity`.
    """
    found = Duplicates(ctx.state / "near", config, threads=ctx.runtime.threads)
    ctx.resources.callback(found.close)
    rows = ctx.track(segments.rows(Segment), "hashing", total=segments.num_rows)
    found.add(row.text for row in rows)
    repeats = found.find()
    repeat = next(repeats, None)
    rows = ctx.track(segments.rows(Segment), "comparing", total=segments.num_rows)
    for place, row in enumerate(rows):
        if repeat is None or repeat.row != place:
            yield row
            continue
        more = {"kept_row": repeat.kept, "similarity": repeat.similarity}
        ctx.drop(to_json({**row.model_dump(), **more}).decode(), f"{repeat.kind}_duplicate")
        repeat = next(repeats, None)


@stage(version=2, writes=Segment, plan=plan_kept)
def decontaminate(
    ctx: Context, config: ContaminationConfig, *, segments: Artifact, items: Artifacts
) -> Iterator[Segment]:
    """Yield the segments that contain no evaluation item; see `without_items` for drops, counts."""
    index = ItemIndex(rows_of(items, Item), config)
    rows = ctx.track(segments.rows(Segment), "searching", total=segments.num_rows)
    yield from without_items(ctx, index, rows, lambda row: row.text)


class _Live:
    """Progress: bytes done, pages a second, segments, the most frequent reasons of drops."""

    def __init__(self, ctx: Context, parts: list[Part]) -> None:
        self._ctx, self._started, self._tally = ctx, monotonic(), Counter[str]()
        self._total = sum(part.num_bytes for part in parts)
        self._done = sum(p.num_bytes for at, p in enumerate(parts) if is_done(ctx.parts, at))
        self.add()

    def add(self, tally: Counter[str] | None = None, part: Part | None = None) -> None:
        """Report with the outcomes of a chunk, or with a finished part."""
        self._tally.update(tally)
        self._done += part.num_bytes if part else 0
        speed = self._tally[PAGES] / max(monotonic() - self._started, 1e-3)
        lost = Counter({name: n for name, n in self._tally.items() if name not in ("", PAGES)})
        chief = ", ".join(f"{name} {n:,}" for name, n in lost.most_common(NOTE_REASONS))
        note = f"{speed:,.0f} pages/s, {self._tally['']:,} segments; dropped: {chief or '-'}"
        self._ctx.report(Progress("segmenting", self._done / 1e6, self._total / 1e6, "MB", note))


class SampleConfig(Config):
    """How many are drawn."""

    num_rows: int = Field(gt=0)
    """Segments to keep; all of them where there are fewer."""
    seed: int = 0


@stage(
    version=1,
    writes=Segment,
    plan=lambda config, segments: Estimate(
        rows=min(config.num_rows, segments.rows), row_tokens=segments.row_tokens
    ),
)
def sample(ctx: Context, config: SampleConfig, *, segments: Artifact) -> Iterator[Segment]:
    """Keep a uniform random draw, in the order of the input; it contains any smaller one."""
    is_drawn = nested_draw(segments, config.num_rows, config.seed)
    rows = ctx.track(segments.rows(Segment), "drawing", total=len(is_drawn))
    yield from compress(rows, is_drawn)
