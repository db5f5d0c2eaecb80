"""Log-probabilities of given texts: each prompt is read once, and no padding is read or scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from spyhop.lazy import Tensor, torch
from spyhop.models.batching import BatchLimits
from spyhop.models.encoding import Scored
from spyhop.models.forward import Forward, Tree

ROW_TOKENS = 256
"""Tokens up to which several prompts share a row; attention reads the other prompts in vain."""
TRIAL = [Scored([3, 5, 7, 4, 6], [[5, 3, 8], [6, 4, 3], [8]]), Scored([4, 6, 3], [[7, 5]])]
"""Prompts by which a model shows whether it reads several of them in one row as each alone."""
ROUNDING = {"float64": 1e-6, "float32": 1e-3}
"""Differences that are rounding, as a share of the range of log-probabilities."""
HALF_ROUNDING = 0.05


class Scorer:
    """Scores options after prompts with one model."""

    def __init__(self, forward: Forward, limits: BatchLimits) -> None:
        self._forward = forward
        self._limits = limits

    def score(self, scored: Sequence[Scored], num_shared: int = 0) -> list[list[list[float]]]:
        """Return the log-probability of each token of each option of each prompt."""
        longest = max(each.longest for each in scored)
        if longest <= self._forward.shared_limit and self._reads_trees:
            return self._score_trees(scored, num_shared)
        return [self._score_plainly(each) for each in scored]

    @cached_property
    def _reads_trees(self) -> bool:
        """Whether the model reads prompts that share a row as it reads each of them alone."""
        found = _flat(self._score_trees(TRIAL, 0))
        wanted = _flat(map(self._score_plainly, TRIAL))
        share = ROUNDING.get(str(self._forward.model.dtype)[6:], HALF_ROUNDING)
        most = max(abs(one - two) for one, two in zip(found, wanted, strict=True))
        return most <= share * (max(wanted) - min(wanted))

    def _score_trees(self, scored: Sequence[Scored], num_shared: int) -> list[list[list[float]]]:
        values: list[list[list[float]]] = [[] for _ in scored]
        for rows in self._passes(list(self._trees(scored, num_shared)), num_shared):
            past = self._forward.read_shared(scored[0].prompt[:num_shared], len(rows))
            logits_NV = self._forward.read_trees(rows, past)
            trees = [tree for row in rows for tree in row]
            ends = accumulate(tree.num_places for tree in trees)
            lines, tokens = [], []
            for tree, end in zip(trees, ends, strict=True):
                first = end - tree.num_places
                place = first + 1
                for option in tree.options:
                    lines += [first, *range(place, place + len(option) - 1)]
                    tokens += option
                    place += len(option) - 1
            found = iter(_at(logits_NV, lines, tokens))
            for tree in trees:
                values[tree.number] += [[next(found) for _ in option] for option in tree.options]
        return values

    def _trees(self, scored: Sequence[Scored], num_shared: int) -> Iterator[Tree]:
        for number, each in enumerate(scored):
            tree = Tree(number, each.prompt[num_shared:], [])
            for option in each.options:
                if tree.options and self._is_full(tree.size + len(option), tree.num_places):
                    yield tree
                    tree = tree._replace(options=[])
                tree.options.append(option)
            yield tree

    def _is_full(self, num_tokens: int, num_places: int) -> bool:
        return num_tokens > self._limits.tokens or num_places > self._limits.places

    def _passes(self, trees: list[Tree], num_shared: int) -> Iterator[list[list[Tree]]]:
        """Yield the rows of each forward pass, in the order of the trees."""
        longest = max(tree.size for tree in trees)
        width = longest * max(1, ROW_TOKENS // longest)
        rows: list[list[Tree]] = []
        room = num_places = 0
        for tree in trees:
            is_new = tree.size > room
            size = (len(rows) + is_new) * (width + num_shared)
            if rows and self._is_full(size if is_new else 0, num_places + tree.num_places):
                yield rows
                rows, num_places, is_new = [], 0, True
            if is_new:
                rows.append([])
                room = width
            rows[-1].append(tree)
            room -= tree.size
            num_places += tree.num_places
        yield rows

    def _score_plainly(self, scored: Scored) -> list[list[float]]:
        """Score prompt and option as one text; options of one token share it."""
        kept: dict[tuple[int, ...], int] = {}
        texts = [(*scored.prompt, *option[:-1]) for option in scored.options]
        for text, option in zip(texts, scored.options, strict=True):
            kept[text] = max(len(option), kept.get(text, 0))
        logits_NV, _ = self._forward.read(list(kept), list(kept.values()))
        ends = dict(zip(kept, accumulate(kept.values()), strict=True))
        return [
            _at(logits_NV, range(ends[text] - len(option), ends[text]), option)
            for text, option in zip(texts, scored.options, strict=True)
        ]


def _flat(values: Iterable[list[list[float]]]) -> list[float]:
    return [value for options in values for option in options for value in option]


def _at(logits_NV: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Return the log-probability of tokens by the logits of rows, in float32 at least."""
    exact = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    places = torch.tensor([list(rows), list(tokens)], device=logits_NV.device)
    values: list[float] = exact.log_softmax(-1)[places[0], places[1]].tolist()
    return values
