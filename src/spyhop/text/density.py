"""How densely training questions lie about each test item, by the words that they share."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spyhop.lazy import sparse
from spyhop.text.overlap import words

NEIGHBOURS = 10
"""Training questions nearest to an item, over which its density is the mean."""
CELLS = 4_000_000
"""Similarities computed at once: some 32 MB."""


class Density:
    """Mean cosine similarity of each item to its nearest distinct training questions, 0 to 1.

    Words weigh (1 + log frequency) times their inverse frequency among the items. Memory: the items
    and 64 bits a distinct question.
    """

    def __init__(self, items: Iterable[str]) -> None:
        counts = [Counter(words(text)) for text in items]
        found = Counter(word for each in counts for word in each)
        self._columns = {word: place for place, word in enumerate(found)}
        num = 1 + len(counts)
        self._rarity = 1 + np.log(num / (1 + np.array(list(found.values()), dtype=float)))
        self._unseen = 1 + np.log(num)
        self._items = self._matrix(counts)
        self._best = np.zeros((len(counts), NEIGHBOURS))
        self._known: set[int] = set()

    def add(self, questions: Sequence[str]) -> None:
        """Compare training questions with all items; one that came before is skipped."""
        new = [text for text in dict.fromkeys(questions) if hash(text) not in self._known]
        self._known.update(map(hash, new))
        step = max(1, CELLS // max(1, len(self._best)))
        for start in range(0, len(new), step):
            rows = self._matrix([Counter(words(text)) for text in new[start : start + step]])
            both = np.hstack([self._best, (self._items @ rows.T).toarray()])
            self._best = np.partition(both, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]

    def means(self) -> npt.NDArray[np.float64]:
        """Return the density of each item; neighbours that are missing count as 0."""
        return np.asarray(self._best.mean(axis=1))

    def _matrix(self, counts: Sequence[Counter[str]]) -> Any:  # noqa: ANN401 (a sparse array)
        """Return texts as rows of length 1 over the items' words."""
        values, columns, ends = [], [], [0]
        for each in counts:
            known = {self._columns[w]: num for w, num in each.items() if w in self._columns}
            other = [num for word, num in each.items() if word not in self._columns]
            places = [*known]
            weights = (1 + np.log([*known.values()])) * self._rarity[places]
            rest = (1 + np.log(other)) * self._unseen
            values.append(weights / max(1e-9, np.sqrt(np.sum(weights**2) + np.sum(rest**2))))
            columns.append(places)
            ends.append(ends[-1] + len(places))
        flat = [np.concatenate([*each, []]) for each in (values, columns)]
        shape = (len(counts), len(self._columns))
        return sparse.csr_array((flat[0], flat[1].astype(int), ends), shape=shape)
