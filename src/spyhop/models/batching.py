"""Batches of prompts: by what they share and by length. A function of the whole list alone."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

LEAST_SHARED = 16
"""Fewest tokens of a shared beginning."""
GROUP_TOKENS = 256
"""What a group of its own costs, in tokens: an additional forward pass, and smaller batches."""

LEAST_TOKENS = 96
"""Tokens of a batch before it may be cut because its rows are of unequal length."""


class Group(NamedTuple):
    """Rows whose prompts share their first `num_shared` tokens."""

    num_shared: int
    rows: list[int]

    @property
    def saving(self) -> int:
        """Tokens that need not be read, less what the group costs."""
        return self.num_shared * (len(self.rows) - 1) - GROUP_TOKENS


class BatchLimits(NamedTuple):
    """How large a batch may be. A single row may be larger."""

    tokens: int
    """Padded tokens, those of a shared beginning included: all of them are held in memory."""
    places: int
    """Places at which logits are made."""
    shared_tokens: int
    """Most tokens of a row that may share its beginning."""
    filled: float = 0.9
    """Shortest row as a share of the longest. Decoding reads every weight for a token of each row,
    so there rows of any length share a batch."""


def plan_batches(
    prompts: Sequence[list[int]],
    lengths: Sequence[int],
    limits: BatchLimits,
    num_new: int = 0,
) -> list[Group]:
    """Return the batches: prompts of similar length within a group, longest first.

    `lengths` are those with the longest option; `num_new` is room for a response.
    """
    short = [n for n, length in enumerate(lengths) if length <= limits.shared_tokens]
    found = shared_beginnings([prompts[n] for n in short])
    groups = [Group(num, [short[n] for n in rows]) for num, rows in found]
    others = set(range(len(prompts))).difference(*(rows for _, rows in groups))
    batches = []
    for num_shared, rows in [*groups, Group(0, sorted(others))]:
        order = sorted(rows, key=lambda n: (-len(prompts[n]), prompts[n]))
        widths = [len(prompts[n]) - num_shared for n in order]
        ends = cut(widths, [1] * len(order), limits, num_shared + num_new)
        batches += [Group(num_shared, order[start:end]) for start, end in ends]
    return batches


def cut(
    widths: Sequence[int], places: Sequence[int], limits: BatchLimits, num_held: int
) -> Iterator[tuple[int, int]]:
    """Yield start and end of batches of rows, longest first; `num_held` tokens of each are read."""
    start = num_places = 0
    for row, width in enumerate(widths):
        size = row - start
        is_full = (size + 1) * (widths[start] + num_held) > limits.tokens
        is_full |= num_places + places[row] > limits.places
        is_ragged = width < limits.filled * widths[start] and size * widths[start] >= LEAST_TOKENS
        if size and (is_full or is_ragged):
            yield start, row
            start, num_places = row, 0
        num_places += places[row]
    if start < len(widths):
        yield start, len(widths)


def shared_beginnings(prompts: Sequence[list[int]]) -> list[Group]:
    """Group prompts by beginnings, so that most reading is saved; the rest is in no group.

    Each prompt keeps at least one token of its own. The tree of common beginnings is walked from
    its leaves: the groups of a node's branches are replaced by one group of all its prompts where
    that saves more.
    """
    order = sorted(range(len(prompts)), key=lambda n: prompts[n])
    path: list[tuple[int, list[_Branch]]] = []
    for place, row in enumerate(order):
        branch = _Branch([], [row])
        following = order[place + 1 : place + 2]
        depth = _num_common(prompts[row], prompts[following[0]]) if following else -1
        while path and path[-1][0] > depth:
            length, branches = path.pop()
            branch = _join(length, [*branches, branch])
        if not following:
            return branch.groups
        if path and path[-1][0] == depth:
            path[-1][1].append(branch)
        else:
            path.append((depth, [branch]))
    return []


class _Branch(NamedTuple):
    groups: list[Group]
    rest: list[int]


def _join(num_shared: int, branches: list[_Branch]) -> _Branch:
    groups = [group for branch in branches for group in branch.groups]
    rest = [row for branch in branches for row in branch.rest]
    if num_shared < LEAST_SHARED:
        return _Branch(groups, rest)
    whole = Group(num_shared, [*rest, *(row for group in groups for row in group.rows)])
    own = Group(num_shared, rest)
    if own.saving > 0:
        groups, rest = [*groups, own], []
    if whole.saving > sum(group.saving for group in groups):
        return _Branch([whole], [])
    return _Branch(groups, rest)


def _num_common(first: Sequence[int], second: Sequence[int]) -> int:
    most = min(len(first), len(second)) - 1
    return next((n for n in range(most) if first[n] != second[n]), most)
