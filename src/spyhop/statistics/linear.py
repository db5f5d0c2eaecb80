"""A linear text classifier: logistic regression over hashed words and pairs of words.

No download, no weights. It sees words and their neighbours, lower case, and nothing else.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from numpy.typing import ArrayLike

from spyhop.lazy import optimize, sparse, special, stats
from spyhop.statistics.interval import Floats

BITS = 18
PENALTY = 0.1
"""Of the squared weights, against the sum of the losses over all texts."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[!?]")
LinearClassifier = Callable[[Sequence[str]], Floats]
"""From texts the probability that each is of the positive class, (texts,)."""


def fit_linear(texts: Sequence[str], is_positive: Sequence[bool]) -> LinearClassifier:
    """Fit the classifier; each class has half of the total weight."""
    y = np.where(np.asarray(is_positive, dtype=bool), 1.0, -1.0)
    if len(texts) != len(y) or len(set(y)) < 2:
        raise ValueError(f"{len(texts)} texts of {len(set(y))} classes; both classes are needed")
    x = features(texts)
    share = np.where(y > 0, (y < 0).mean(), (y > 0).mean()) * 2

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = y * (x @ weights[:-1] + weights[-1])
        slope = -share * y * special.expit(-margin)
        gradient = np.append(x.T @ slope + PENALTY * weights[:-1], slope.sum())
        value = (share * np.logaddexp(0, -margin)).sum() + PENALTY / 2 * (weights[:-1] ** 2).sum()
        return float(value), gradient

    start = np.zeros(x.shape[1] + 1)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return lambda texts: special.expit(features(texts) @ found.x[:-1] + found.x[-1])


def cross_validated_auc(texts: Sequence[str], is_positive: Sequence[bool], folds: int = 5) -> float:
    """Return the AUC on texts that the classifier was not fitted to; folds are by hash of text."""
    order = sorted(range(len(texts)), key=lambda n: xxhash.xxh64_intdigest(texts[n].encode()))
    order.sort(key=lambda n: is_positive[n])  # each fold has its share of both classes
    scores = np.zeros(len(texts))
    for fold in range(folds):
        held, used = order[fold::folds], sorted({*order} - {*order[fold::folds]})
        classifier = fit_linear([texts[n] for n in used], [is_positive[n] for n in used])
        scores[held] = classifier([texts[n] for n in held])
    return auc(scores, is_positive)


def features(texts: Sequence[str]) -> Any:  # noqa: ANN401 (scipy's sparse matrix)
    """Return the hashed words and neighbours of each text, (texts, 2^BITS), rows of length 1."""
    columns: list[int] = []
    ends = [0]
    for text in texts:
        words = _WORD.findall(text.lower())
        grams = {*words, *map(" ".join, pairwise(words))}
        columns += sorted({xxhash.xxh32_intdigest(gram.encode()) >> (32 - BITS) for gram in grams})
        ends.append(len(columns))
    sizes = np.diff(ends)
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    return sparse.csr_matrix((values, columns, ends), shape=(len(texts), 1 << BITS))


def auc(scores: ArrayLike, is_positive: ArrayLike) -> float:
    """Return the share of pairs of both classes that the scores order right; ties count half."""
    x, y = np.asarray(scores, dtype=float), np.asarray(is_positive, dtype=bool)
    if x.shape != y.shape or y.all() or not y.any() or not np.isfinite(x).all():
        raise ValueError("an AUC needs finite scores of both classes")
    return float(stats.mannwhitneyu(x[y], x[~y]).statistic / (y.sum() * (~y).sum()))
