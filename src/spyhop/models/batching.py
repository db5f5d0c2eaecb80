"""Batches of prompts: by what they share and by length. A function of the whole list alone."""

from collections.abc import Sequence
from os.path import commonprefix
from typing import NamedTuple

LEAST_SHARED = 16
"""Fewest tokens of a shared beginning."""
GROUP_TOKENS = 256
"""What a group of its own costs, in tokens: an additional forward pass, and smaller batches."""


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
    """Tokens, padding and those of a shared beginning included: all of them are in memory."""
    places: int
    """Places at which logits are made together."""
    shared_tokens: int
    """Most tokens of a row that may share its beginning."""


def plan_batches(
    prompts: Sequence[list[int]],
    lengths: Sequence[int],
    limits: BatchLimits,
    sizes: Sequence[int] | None = None,
) -> list[Group]:
    """Return the batches: prompts of similar length within a group, longest first.

    Args:
        prompts: Token ids.
        lengths: Tokens of each prompt with its longest option or its response.
        limits: How large a batch may be.
        sizes: Tokens of each prompt with all its options, where rows are not padded.
    """
    short = [n for n, length in enumerate(lengths) if length <= limits.shared_tokens]
    found = shared_beginnings([prompts[n] for n in short])
    groups = [Group(num, [short[n] for n in rows]) for num, rows in found]
    others = set(range(len(prompts))).difference(*(rows for _, rows in groups))
    batches = []
    for num_shared, rows in [*groups, Group(0, sorted(others))]:
        batch: list[int] = []
        total = 0
        for n in sorted(rows, key=lambda n: (-len(prompts[n]), prompts[n])):
            size = lengths[batch[0] if batch else n] if sizes is None else sizes[n] - num_shared
            if batch and total + size > limits.tokens:
                batches.append(Group(num_shared, batch))
                batch, total = [], 0
            batch.append(n)
            total += size
        batches += [Group(num_shared, batch)] if batch else []
    return batches


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
        depth = num_common([prompts[row], prompts[following[0]]]) if following else -1
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


def num_common(texts: Sequence[list[int]]) -> int:
    """Return how many ids all texts begin with; each keeps at least one of its own."""
    return min(len(commonprefix(texts)), *(len(ids) - 1 for ids in texts))  # noqa: RUF071
