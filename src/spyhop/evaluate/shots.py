"""Worked examples before a question: which rows of a pool are shown with an item."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal

from spyhop.schema import InputError

Sampler = Literal["first_n", "seeded"]
SEED = 1234
"""lm-eval's seed of few-shot sampling."""


class Drawer:
    """Draws worked examples for items in their order: `seeded` continues one random sequence.

    `seeded` is the default sampler of lm-eval 0.4: Python's `random.sample` for one item after the
    other, so that an item's examples depend on how many items precede it.
    """

    def __init__(
        self, pool: Sequence[Mapping[str, Any]], number: int, sampler: Sampler, *, excludes: bool
    ) -> None:
        """Draw `number` rows of a pool; with `excludes`, none that equals the item's row."""
        self._pool, self._number, self._sampler = pool, number, sampler
        self._excludes = excludes
        self._random = Random(SEED)

    def draw(self, row: Mapping[str, Any]) -> list[int]:
        """Return the positions of the examples in the pool, in the order of showing."""
        every = range(len(self._pool))
        try:
            if self._sampler == "first_n":
                return self._checked(self._others(every, row)[: self._number])
            num = self._number + self._excludes
            found = self._others(self._random.sample(every, num), row)[: self._number]
            if len(found) < self._number:  # the pool has the row several times
                found = self._random.sample(self._others(every, row), self._number)
            return found
        except ValueError:
            return self._checked([])

    def _others(self, places: Sequence[int], row: Mapping[str, Any]) -> list[int]:
        return [n for n in places if not self._excludes or self._pool[n] != row]

    def _checked(self, places: list[int]) -> list[int]:
        if len(places) < self._number:
            raise InputError(
                f"{self._number} worked examples are wanted; their files have "
                f"{len(self._pool)} rows, besides the item's own"
            )
        return places
