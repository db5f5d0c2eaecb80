"""How much of an evaluation set stands in the training rows, item by item.

Three measures, the later ones wider: `exact`, a training row's question has the words of the item;
`long`, a row shares a run of 13 words with it; `short`, a run of 8. A run that many items share is
a form of words and does not count.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from pydantic import Field

from spyhop.schema import Answer, Config, Item, Row
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.text.overlap import BATCH_TEXTS, Runs, fingerprint, words

ROWS_PER_S = 4_000
"""Planning figure: training rows looked through on one core."""


class Seen(Row):
    """What the training rows hold of an item; `id` is the item's."""

    suite: str
    task: str
    is_exact: bool = False
    long_run: str = ""
    """Words that a training row shares with it, the first that were found; empty is none."""
    short_run: str = ""
    row_id: str = ""
    """The row of the closest match."""
    is_checked: bool
    """Whether it has a run of words of its own at all; what has none can only be found whole."""

    @property
    def has_long(self) -> bool:
        """Whether a training row asks it, or shares a long run with it."""
        return self.is_exact or bool(self.long_run)

    @property
    def has_any(self) -> bool:
        """Whether any measure finds it."""
        return self.has_long or bool(self.short_run)


class ContaminationRateConfig(Config):
    """What counts as shared."""

    long_words: int = Field(13, ge=2)
    short_words: int = Field(8, ge=2)
    max_items: int = Field(10, ge=1)
    """A run that more items share than this is a form of words, not an item."""


def plan_contamination(
    config: ContaminationRateConfig, items: Mapping[str, Estimate], answers: Mapping[str, Estimate]
) -> Estimate:
    """One row per item; every training row is read."""
    seconds = sum_estimates(answers.values()).rows / ROWS_PER_S
    return Estimate(rows=sum_estimates(items.values()).rows, seconds=seconds)


@stage(version=1, writes=Seen, plan=plan_contamination)
def contamination(
    ctx: Context,
    config: ContaminationRateConfig,
    *,
    items: Mapping[str, Artifact],
    answers: Mapping[str, Artifact],
) -> Iterator[Seen]:
    """Yield every item, in order, with what the questions and responses of the rows hold of it.

    Counts, for each suite: `items/`, `exact/`, `long/`, `short/` and `unchecked/`; a wider measure
    counts what a narrower one found, too.
    """
    every = [item for each in items.values() for item in each.rows(Item)]
    found = _Found.of(every, config)
    for artifact in answers.values():
        rows = (row for row in artifact.rows(Answer) if row.error is None)
        told = ctx.track(rows, "comparing with items", total=artifact.num_rows)
        while batch := list(islice(told, BATCH_TEXTS)):
            found.look(batch)
    for place, item in enumerate(every):
        is_checked = bool(found.short.is_checked[place])
        values = {**found.matches.get(place, {}), "is_checked": is_checked}
        seen = Seen(id=item.id, suite=item.suite, task=item.task, **values)
        ctx.count(f"items/{seen.suite}")
        ctx.count(f"exact/{seen.suite}", int(seen.is_exact))
        ctx.count(f"long/{seen.suite}", int(seen.has_long))
        ctx.count(f"short/{seen.suite}", int(seen.has_any))
        ctx.count(f"unchecked/{seen.suite}", int(not seen.is_checked))
        yield seen


@dataclass(slots=True)
class _Found:
    """Matches by the place of the item."""

    whole: Mapping[int, list[int]]
    """Fingerprint of a question to the items that ask it."""
    long: Runs
    short: Runs
    matches: dict[int, dict[str, str | bool]] = field(default_factory=dict)

    @staticmethod
    def of(items: list[Item], config: ContaminationRateConfig) -> "_Found":
        split = [words(item.question) for item in items]
        whole: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            whole.setdefault(fingerprint(item.question), []).append(place)
        return _Found(
            whole,
            Runs(split, config.long_words, config.max_items),
            Runs(split, config.short_words, config.max_items),
        )

    def look(self, rows: list[Answer]) -> None:
        split = []
        for row in rows:
            asked = [turn.content for turn in row.messages if turn.role == "user"]
            for item in self.whole.get(fingerprint(" ".join(asked)), ()):
                self._match(item, row, is_exact=True)
            said = [turn.content for turn in row.messages if turn.role != "system"]
            split.append(words("\n".join(said)))
        for item, text, run in self.long.find(split):
            self._match(item, rows[text], long_run=run)
        for item, text, run in self.short.find(split):
            self._match(item, rows[text], short_run=run)

    def _match(self, item: int, row: Answer, **what: str | bool) -> None:
        known = self.matches.setdefault(item, {})
        (name,) = what
        if name in known:
            return
        order = ("short_run", "long_run", "is_exact")
        if all(order.index(name) > order.index(each) for each in known if each in order):
            known["row_id"] = row.id
        known |= what
