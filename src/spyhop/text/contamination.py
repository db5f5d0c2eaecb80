"""Texts that contain an evaluation item: one index, one type of dropped row, one loop.

An item is found in a text that equals its question, and in one that shares an n-gram of words with
its question without options and cue, which other items share.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, Field

from spyhop.schema import Config, Item, Row
from spyhop.text.overlap import BATCH_TEXTS, fingerprint, hash_runs, words

R = TypeVar("R", bound=Row)


class ContaminationConfig(Config):
    """Definition of contamination: when a text counts as containing an evaluation item."""

    ngram_words: int = Field(13, ge=2)
    """A text that shares this many consecutive words with an item is contaminated."""
    short_ngram_words: int = Field(8, ge=2)
    """The same for items of fewer than `ngram_words` words. Still shorter items are found only in
    texts that are equal to them, since their words occur by chance."""
    max_items: int = Field(10, ge=1)
    """N-grams shared by more items than this are boilerplate and ignored."""


class Contaminated(Row):
    """A row that was dropped because it contains an evaluation item; `id` is the row's."""

    collection: str = ""
    task: str = ""
    origin: str = ""
    """Address or file of the row, where it has one."""
    text: str
    item_id: str
    suite: str
    item_task: str
    words: str
    """The words that both contain."""


class Match(NamedTuple):
    """An item and a text that contains it, as their positions, and the words that both contain."""

    item: int
    text: int
    kind: Literal["whole", "long", "short"]
    words: str


_NO_WORDS = fingerprint("")  # of texts without words and signs, which equal each other but no item


class Sink(Protocol):
    """Where a stage counts and drops rows; a stage's context is one."""

    def count(self, name: str, num: int = 1) -> None: ...  # noqa: D102
    def drop(self, row: BaseModel | str, reason: str) -> None: ...  # noqa: D102


class ItemIndex:
    """The questions of evaluation items, to find texts that contain them.

    Memory: 24 bytes an n-gram.

    Source: the 13-grams of GPT-3 (arXiv:2005.14165, appendix C), with its rule for frequent ones.
    """

    def __init__(
        self, items: Iterable[Item], config: ContaminationConfig, *, all_short: bool = False
    ) -> None:
        """Index items; with `all_short`, long items are also found by their short n-grams."""
        self.items: list[Item] = []
        self._wholes: dict[int, list[int]] = {}
        split = []
        for place, item in enumerate(items):
            self.items.append(item)
            question = item.text or item.question
            split.append(words(question))
            prints = {*map(fingerprint, (question, item.question, item.asked))} - {_NO_WORDS}
            for each in prints:
                self._wholes.setdefault(each, []).append(place)
        is_short = [all_short or len(each) < config.ngram_words for each in split]
        short = [each if taken else [] for each, taken in zip(split, is_short, strict=True)]
        self._long = _Runs(split, config.ngram_words, config.max_items)
        self._short = _Runs(short, config.short_ngram_words, config.max_items)
        self.is_checked = self._long.is_checked | self._short.is_checked
        """Of each item: False if it has no n-gram of its own, so that only equal texts match."""

    def matches(self, texts: Sequence[str], wholes: Sequence[str] = ()) -> Iterator[Match]:
        """Yield every item in every text, kind by kind; the same match may come repeatedly.

        `wholes` are the parts of the texts that are compared with whole questions; default: all.
        """
        if not self.items:
            return
        for place, whole in enumerate(wholes or texts):
            for item in self._wholes.get(fingerprint(whole), ()):
                yield Match(item, place, "whole", whole)
        split = [words(text) for text in texts]
        yield from self._long.find(split, "long")
        yield from self._short.find(split, "short")

    def check(
        self, rows: Iterable[R], text: Callable[[R], str], whole: Callable[[R], str] | None = None
    ) -> Iterator[tuple[R, Match | None]]:
        """Yield every row with the first match in it, if any; see `matches`."""
        rows = iter(rows)
        while batch := list(islice(rows, BATCH_TEXTS)):
            found: dict[int, Match] = {}
            for match in self.matches([*map(text, batch)], [*map(whole or text, batch)]):
                found.setdefault(match.text, match)
            yield from ((row, found.get(place)) for place, row in enumerate(batch))


def without_items(
    ctx: Sink,
    index: ItemIndex,
    rows: Iterable[R],
    text: Callable[[R], str],
    whole: Callable[[R], str] | None = None,
) -> Iterator[R]:
    """Yield the rows that contain no item; the others are dropped as `contaminated/<suite>`.

    Counts: `items`, `items_found` (different items in dropped rows), `items_unchecked` (items that
    only an equal text matches) and `contaminated/<collection>` of rows that have one.
    """
    if not index.items:
        yield from rows
        return
    ctx.count("items", len(index.items))
    ctx.count("items_unchecked", int((~index.is_checked).sum()))
    found: set[str] = set()
    for row, match in index.check(rows, text, whole):
        if match is None:
            yield row
            continue
        item, collection = index.items[match.item], getattr(row, "collection", "")
        found.add(item.id)
        if collection:
            ctx.count(f"contaminated/{collection}")
        dropped = Contaminated(
            id=row.id,
            collection=collection,
            task=getattr(row, "task", ""),
            origin=getattr(row, "url", "") or getattr(row, "origin", ""),
            text=text(row),
            item_id=item.id,
            suite=item.suite,
            item_task=item.task,
            words=match.words,
        )
        ctx.drop(dropped, f"contaminated/{item.suite}")
    ctx.count("items_found", len(found))


class _Runs:
    """The n-grams of items, split into words, and which items have them."""

    def __init__(self, items: Sequence[list[str]], ngram_words: int, max_items: int) -> None:
        self._ngram_words = ngram_words
        hashes, begins = hash_runs(items, ngram_words)
        owners = np.repeat(np.arange(len(items)), np.diff(begins))
        is_whole = np.array([len(each) >= ngram_words for each in items], bool)[owners]
        pairs = np.unique(np.stack([hashes[is_whole], owners[is_whole].astype(np.uint64)]), axis=1)
        _, num = np.unique(pairs[0], return_counts=True)
        is_rare = np.repeat(num <= max_items, num)
        self._hashes, self._owners = pairs[0][is_rare], pairs[1][is_rare].astype(np.int64)
        self.is_checked = np.zeros(len(items), bool)
        self.is_checked[self._owners] = True

    def find(self, texts: Sequence[list[str]], kind: Literal["long", "short"]) -> Iterator[Match]:
        """Yield the items in texts; some repeatedly."""
        if not len(self._hashes):
            return
        hashes, begins = hash_runs(texts, self._ngram_words)
        near = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        hits = np.flatnonzero(self._hashes[near] == hashes)
        ends = np.searchsorted(self._hashes, hashes[hits], "right")
        for hit, end in zip(hits.tolist(), ends.tolist(), strict=True):
            text = int(np.searchsorted(begins, hit, "right")) - 1
            at = hit - int(begins[text])
            run = " ".join(texts[text][at : at + self._ngram_words])
            for item in self._owners[near[hit] : end].tolist():
                yield Match(item, text, kind, run)
