"""Sealed tests: what a run is going to show, declared before test items are scored.

The store keeps each scoring of each item in `.scorings.sqlite`. A comparison that was declared
before any model had been scored on the items is confirmatory, any other one exploratory.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from pydantic import Field

from spyhop.evaluate.comparison import PairedResult
from spyhop.evaluate.task import Metric
from spyhop.schema import Config, Item, Row
from spyhop.stage import Context, Estimate, stage
from spyhop.statistics import detectable_difference
from spyhop.store import Artifact, Artifacts, rows_of

LEDGER = ".scorings.sqlite"
BEFORE, BY_MODEL = "scored_before", "scored_before_by_model"
"""Counts in the record of scores: the most earlier scorings of one of the items."""
_TABLES = """
CREATE TABLE IF NOT EXISTS scorings (key TEXT PRIMARY KEY, model TEXT);
CREATE TABLE IF NOT EXISTS scored (item INTEGER, key TEXT, PRIMARY KEY (item, key)) WITHOUT ROWID;
CREATE TEMP TABLE asked (item INTEGER PRIMARY KEY);
"""


DISCORDANT = 0.3
"""Assumed before a run: share of items that only one of two models gets right."""


class SealConfig(Config):
    """A comparison that is declared before test items are scored."""

    metric: Metric = "accuracy"
    """Primary metric. The suites that have it decide; the others are exploratory."""
    arms: tuple[str, ...] = Field(min_length=2)
    """Names of the models that are compared; differences are to the first one."""
    smallest_difference: float = Field(gt=0, lt=1)
    """Smallest difference of interest, as a share: 0.02 is two points."""


class Seal(Row):
    """A declaration; `id` is its name."""

    num_before: int
    """Most earlier scorings of one of the items, by any model."""
    num_items: int
    """Items that decide."""
    detectable: float | None = None
    """Smallest difference that a paired test can be expected to find on these items, before any
    was scored: at power 0.8, where `DISCORDANT` of the items tell the models apart."""


@stage(version=2, writes=Seal, plan=lambda config, items: Estimate(rows=1))
def seal(ctx: Context, config: SealConfig, *, items: Artifacts) -> Iterator[Seal]:
    """Declare a comparison. Steps that score the items take the declaration as an input."""
    ids = [item.id for item in rows_of(items, Item)]
    before, smallest = _count(ctx.root, ids)[0], detectable_difference(len(ids), DISCORDANT)
    found = Seal(id="seal", num_before=before, num_items=len(ids), detectable=smallest)
    ctx.notice(_power(found))
    yield found


def note_scoring(ctx: Context, model: str, ids: Sequence[str]) -> None:
    """Count earlier scorings of items in the record of their scores, and add this one.

    A scoring that is resumed or repeated counts once.
    """
    key = ctx.out.parent.name
    before, by_model = _count(ctx.root, ids, key, model)
    ctx.count(BEFORE, before)
    ctx.count(BY_MODEL, by_model)


def _count(root: Path, ids: Sequence[str], key: str = "", model: str = "") -> tuple[int, int]:
    """Return the most scorings of one item, by any model and by this one; add the scoring `key`."""
    digests = (sha256(row_id.encode()).digest() for row_id in ids)
    items = {int.from_bytes(digest[:8], signed=True) for digest in digests}
    with closing(sqlite3.connect(root / LEDGER, timeout=60)) as db, db:
        db.executescript(_TABLES)
        db.executemany("INSERT INTO asked VALUES (?)", ((item,) for item in items))
        query = (
            "SELECT max(n), max(own) FROM (SELECT count(*) AS n, sum(model = ?) AS own FROM asked "
            "JOIN scored USING (item) JOIN scorings USING (key) WHERE key != ? GROUP BY item)"
        )
        before, by_model = db.execute(query, (model, key)).fetchone()
        if key:
            db.execute("INSERT OR IGNORE INTO scorings VALUES (?, ?)", (key, model))
            db.execute("INSERT OR IGNORE INTO scored SELECT item, ? FROM asked", (key,))
    return before or 0, by_model or 0


def seal_state(scores: Artifacts, sealed: Artifact | None = None) -> str:
    """Say whether a comparison of scores is confirmatory or exploratory, and why."""
    counts = {name: artifact.record.counts for name, artifact in scores.items()}
    num = 1 + max((each.get(BEFORE, 0) for each in counts.values()), default=0)
    explored = f"exploratory, scored {'once' if num == 1 else f'{num:,} times'}"
    if sealed is None:
        return explored
    config = SealConfig.model_validate(sealed.record.config)
    (declared,) = sealed.rows(Seal)
    missing = ", ".join(name for name in config.arms if name not in counts)
    again = ", ".join(name for name in config.arms if counts.get(name, {}).get(BY_MODEL))
    told = (
        f"metric {config.metric}, {' against '.join(config.arms)}, smallest difference of interest "
        f"{100 * config.smallest_difference:g} points, {_power(declared)}"
    )
    if declared.num_before:
        why = ", declared after earlier scorings"
    elif missing or again:
        why = f"; not scored: {missing}" if missing else f"; scored again: {again}"
    else:
        return f"confirmatory: {told}, declared before any item was scored"
    return f"{explored}; {told}{why}"


def _power(declared: Seal) -> str:
    size = declared.detectable
    found = "no difference" if size is None else f"a difference of {100 * size:.1f} points"
    return (
        f"{declared.num_items:,} items can be expected to show {found} (if {DISCORDANT:.0%} of "
        "them tell two models apart)"
    )


def of_interest(found: PairedResult, smallest: float) -> str:
    """Return what an interval says about the smallest difference of interest."""
    if found.low is None or found.high is None:
        return "undecided"
    if max(found.low, -found.high) >= smallest:
        return "of interest"
    return "too small" if -smallest < found.low and found.high < smallest else "undecided"
