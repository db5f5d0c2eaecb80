"""How many rows each task gives: Algorithm 1 of the Orca paper, run on the counts alone.

The paper's algorithm draws a live task uniformly, then one of its rows without replacement, until
there are enough; a task without rows is no longer live. The rows of a task are a uniform choice
apart from all that, so only the *number* of draws from each task must be simulated.

Here every task has a clock that strikes at rate 1 (a Poisson process), and a strike takes a row
while there is one. The next strike of a live task is equally likely to come from any of them, so
the sequence of strikes is the paper's sequence of draws, and stopping at the strike that makes
`num_rows` gives exactly its quotas. The strikes of an interval are drawn at once; halving one
spreads its strikes binomially. Each interval has random numbers of its own, hence one and the same
sequence of strikes for any `num_rows`: with more rows, no task gives fewer.

Source: Orca (arXiv:2306.02707), section 3.1.2, Algorithm 1.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def quotas(available: Sequence[int], num_rows: int, seed: int) -> Counts:
    """Return how many rows each task gives, as Algorithm 1 would; `available` are those it has."""
    rows = np.asarray(available, np.int64)
    if num_rows >= rows.sum():
        return rows.copy()
    taken = np.zeros_like(rows)
    start, length = 0.0, 1.0
    strikes = _random(seed, start, length).poisson(length, len(rows))
    while np.minimum(rows, taken + strikes).sum() < num_rows:
        taken += strikes
        start, length = start + length, start + length
        strikes = _random(seed, start, length).poisson(length, len(rows))
    while np.minimum(rows, taken).sum() < num_rows:
        length /= 2
        first = _random(seed, start, length).binomial(strikes, 0.5)
        if np.minimum(rows, taken + first).sum() >= num_rows:
            strikes = first
        else:
            taken, strikes = taken + first, strikes - first
            start += length
        if strikes.sum() == 1:
            taken += strikes
    return np.minimum(rows, taken)


def _random(seed: int, start: float, length: float) -> np.random.RandomState:
    """Return the interval's own generator; RandomState's numbers never change between versions."""
    digest = hashlib.sha256(f"{seed}/{start!r}/{length!r}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, np.uint32))
