"""Worked examples before a question: which rows of a pool are shown with an item."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Literal

from spyhop.schema import InputError

Sampler = Literal["first_n", "seeded"]
SEED = 1234
"""lm-eval's seed of few-shot sampling."""
Fields = Mapping[str, Any]


def draw_shots(
    pool: Sequence[Fields],
    items: Sequence[Fields],
    number: int,
    sampler: Sampler,
    *,
    excludes: bool,
) -> Iterator[list[int]]:
    """Yield the positions in the pool of each item's examples, in the order of showing.

    `seeded` is the default sampler of lm-eval 0.4: Python's `random.sample` for one item after the
    other, so that an item's examples depend on how many items precede it. With `excludes`, no
    example equals the item's own row.
    """
    rng, every = Random(SEED), range(len(pool))
    for item in items:
        other = item if excludes else None
        try:
            if sampler == "first_n":
                found = _others(pool, every, other)[:number]
            else:
                found = _others(pool, rng.sample(every, number + excludes), other)[:number]
                if len(found) < number:  # the pool has the row several times
                    found = rng.sample(_others(pool, every, other), number)
        except ValueError:
            found = []
        if len(found) < number:
            raise InputError(
                f"{number} worked examples are wanted; their files have {len(pool)} rows, besides "
                "the item's own"
            )
        yield found


def _others(pool: Sequence[Fields], places: Sequence[int], item: Fields | None) -> list[int]:
    return [n for n in places if pool[n] != item]
