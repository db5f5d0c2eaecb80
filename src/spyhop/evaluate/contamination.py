"""How much of an evaluation set the training rows contain, and how near they are, item by item.

Three measures, the later ones wider: `exact`, a row's question equals the item's; `long`, a row
shares a run of 13 words with it; `short`, a run of 8. A run that many items share is boilerplate
and ignored. `density` is a measure of nearness, not of overlap.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from pydantic import Field

from spyhop.schema import Answer, Config, Item, Row
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifacts, rows_of
from spyhop.text.contamination import ContaminationConfig, ItemIndex
from spyhop.text.density import Density
from spyhop.text.overlap import BATCH_TEXTS

ROWS_PER_S = 4_000
"""Planning figure: training rows searched on one core."""


class ItemOverlap(Row):
    """What the training rows contain of an item; `id` is the item's."""

    suite: str
    task: str
    is_exact: bool = False
    long_run: str = ""
    """The first words found that a training row shares with it; empty where no row does."""
    short_run: str = ""
    row_id: str = ""
    """The row of the closest match."""
    density: float = 0.0
    """Mean similarity of the item to the nearest training questions (`text.density`)."""
    is_checked: bool
    """False if the item has no distinctive n-gram; then only exact matches are detectable."""

    @property
    def has_long(self) -> bool:
        """Whether a training row equals it or shares a long run with it."""
        return self.is_exact or bool(self.long_run)

    @property
    def has_any(self) -> bool:
        """Whether any measure finds it."""
        return self.has_long or bool(self.short_run)


class ContaminationRateConfig(Config):
    """Lengths of the runs of words that count as shared."""

    long_words: int = Field(13, ge=2)
    short_words: int = Field(8, ge=2)
    max_items: int = Field(10, ge=1)
    """N-grams shared by more items than this are boilerplate and ignored."""


@stage(
    version=3,
    writes=ItemOverlap,
    plan=lambda config, items, answers: Estimate(
        rows=sum_estimates(items.values()).rows,
        seconds=sum_estimates(answers.values()).rows / ROWS_PER_S,
    ),
)
def check_contamination(
    ctx: Context, config: ContaminationRateConfig, *, items: Artifacts, answers: Artifacts
) -> Iterator[ItemOverlap]:
    """Yield every item, in order, with the closest match in the questions and responses of rows.

    Counts, for each suite: `items/`, `exact/`, `long/`, `short/` and `unchecked/`; a wider measure
    includes the narrower ones.
    """
    lengths = {"ngram_words": config.long_words, "short_ngram_words": config.short_words}
    rule = ContaminationConfig(**lengths, max_items=config.max_items)
    index = ItemIndex(rows_of(items, Item), rule, all_short=True)
    density = Density(item.question for item in index.items)
    matches: dict[int, dict[str, tuple[str, str]]] = defaultdict(dict)
    for artifact in answers.values():
        rows = (row for row in artifact.rows(Answer) if row.error is None)
        tracked = ctx.track(rows, "comparing with items", total=artifact.num_rows)
        while batch := list(islice(tracked, BATCH_TEXTS)):
            texts = ["\n".join(_turns(row, "user", "assistant")) for row in batch]
            questions = [" ".join(_turns(row, "user")) for row in batch]
            density.add(questions)
            for match in index.matches(texts, questions):
                first = match.words, batch[match.text].id
                matches[match.item].setdefault(match.kind, first)
    for place, (item, near) in enumerate(zip(index.items, density.means(), strict=True)):
        found = matches[place]
        words = {kind: words for kind, (words, _) in found.items()}
        row_ids = (found[kind][1] for kind in ("whole", "long", "short") if kind in found)
        overlap = ItemOverlap(
            id=item.id, suite=item.suite, task=item.task, is_exact="whole" in found,
            long_run=words.get("long", ""), short_run=words.get("short", ""),
            row_id=next(row_ids, ""), density=near, is_checked=bool(index.is_checked[place]),
        )  # fmt: skip
        counts = {
            "items": True, "exact": overlap.is_exact, "long": overlap.has_long,
            "short": overlap.has_any, "unchecked": not overlap.is_checked,
        }  # fmt: skip
        for name, is_so in counts.items():
            ctx.count(f"{name}/{item.suite}", int(is_so))
        yield overlap


def _turns(row: Answer, *roles: str) -> list[str]:
    return [turn.content for turn in row.messages if turn.role in roles]
