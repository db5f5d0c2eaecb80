"""Main text on two public benchmarks, beside trafilatura, with intervals over pages.

    SPYHOP_DATA=... python benchmarks/corpus_pages.py

Snippets: 346 pages with texts that must and must not be in the main text, counted as trafilatura's
evaluation does: a wanted snippet found is a true positive, an unwanted one found a false positive,
a wanted one missing a false negative; white space is collapsed. Articles: 181 pages with their gold
text, runs of four words, precision and recall averaged over pages before F1 is taken.
"""

import gzip
import json
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import numpy as np
import trafilatura

from spyhop.corpus import scan
from spyhop.corpus.scan import Block
from spyhop.corpus.work import ExtractConfig, extract

ROUNDS = 3
NUM_SAMPLES = 10_000
"""Of the bootstrap over pages."""


@dataclass(frozen=True)
class Counts:
    """Snippets of some pages."""

    hits: int = 0
    false_hits: int = 0
    misses: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Return both together."""
        return Counts(
            self.hits + other.hits,
            self.false_hits + other.false_hits,
            self.misses + other.misses,
        )

    @property
    def precision(self) -> float:
        """Wanted ones of those found."""
        return self.hits / max(1, self.hits + self.false_hits)

    @property
    def recall(self) -> float:
        """Found ones of those wanted."""
        return self.hits / max(1, self.hits + self.misses)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return f1_of(self.precision, self.recall)


def f1_of(precision: float, recall: float) -> float:
    """Return the harmonic mean."""
    return 2 * precision * recall / max(1e-9, precision + recall)


def plain(text: str) -> str:
    """Collapse white space."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Snippets:
    """A page and the texts that must and must not be in its main text."""

    path: Path
    site: str
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    @classmethod
    def all(cls, data: Path) -> Iterator[Self]:
        """Yield the pages of the evaluation."""
        folder = data / "html_snippets"
        for line in (folder / "snippets.jsonl").read_text().splitlines():
            row = json.loads(line)
            url = row["url"].rpartition("::")[2]
            site = url if "web.archive.org" in url else urlsplit(url).netloc or url
            wanted, unwanted = (tuple(map(plain, row[key])) for key in ("with", "without"))
            yield cls(folder / "pages" / row["file"], site, wanted, unwanted)

    def data(self) -> bytes:
        """Return the page as it was sent."""
        return self.path.read_bytes()

    def count(self, text: str) -> Counts:
        """Count the snippets that a text holds."""
        text = plain(text)
        hits = sum(each in text for each in self.wanted)
        return Counts(hits, sum(each in text for each in self.unwanted), len(self.wanted) - hits)


def runs(text: str) -> Counter[tuple[str, ...]]:
    """Return the runs of four words."""
    words = re.findall(r"\w+", text)
    num = max(1, len(words) - 3) if words else 0
    return Counter(tuple(words[at : at + 4]) for at in range(num))


def precision_recall(gold: str, found: str) -> tuple[float, float]:
    """Return both for one page."""
    wanted, given = runs(gold), runs(found)
    common = (wanted & given).total()
    if wanted == given:
        return 1.0, 1.0
    return common / max(1, given.total()), common / max(1, wanted.total())


def article_scores(gold: str, blocks: Sequence[Block]) -> tuple[float, float]:
    """Return precision and recall of blocks; the title is no part of the gold text."""
    shown = [each.text for each in blocks if (each.kind, each.level) != ("heading", 1)]
    return precision_recall(gold, "\n".join(shown))


def _ours(page: bytes) -> list[Block]:
    return extract(page, "", ExtractConfig()).blocks


def _ours_new(page: bytes) -> list[Block]:
    return _ours(page)


def theirs(page: bytes, **options: bool) -> list[Block]:
    """Return trafilatura's main text as one block."""
    text = trafilatura.extract(page, **options) or ""
    return [Block("text", text, 0, 0, 0)]


EXTRACTORS: dict[str, Callable[[bytes], list[Block]]] = {
    "trafilatura": theirs,
    "spyhop": _ours,
    "spyhop, all tags new": _ours_new,
    "trafilatura, no comments": lambda page: theirs(page, include_comments=False),
    "trafilatura, fast, no comments": lambda page: theirs(page, fast=True, include_comments=False),
}


def _interval(values: np.ndarray) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{low:.3f} to {high:.3f}"


def bootstrap(counts: Sequence[Counts], scores: Sequence[tuple[float, float]]) -> list[np.ndarray]:
    """Return F1 on snippets and on articles, each over pages drawn with replacement."""
    random = np.random.default_rng(0)
    table = np.array([(each.hits, each.false_hits, each.misses) for each in counts])
    drawn = random.integers(len(table), size=(NUM_SAMPLES, len(table)))
    hits, false_hits, misses = table[drawn].sum(1).T
    drawn = random.integers(len(scores), size=(NUM_SAMPLES, len(scores)))
    precision, recall = np.array(scores)[drawn].mean(1).T
    return [
        2 * hits / (2 * hits + false_hits + misses),
        2 * precision * recall / (precision + recall),
    ]


def summary(
    counts: Sequence[Counts],
    scores: Sequence[tuple[float, float]],
    samples: Sequence[np.ndarray],
    first: Sequence[np.ndarray],
) -> Iterator[str]:
    """Yield a line for snippets and one for articles, with the difference from the first one."""
    total = sum(counts, Counts())
    precision, recall = np.mean(scores, axis=0)
    figures = {"snippets": (total.precision, total.recall), "articles": (precision, recall)}
    for (name, (p, r)), own, other in zip(figures.items(), samples, first, strict=True):
        yield (
            f"{name} P {p:.4f} R {r:.4f} F1 {f1_of(p, r):.4f} ({_interval(own)}), "
            f"less the first {_interval(own - other)}"
        )


def main() -> None:
    """Print F1 with intervals over pages, paired differences, and pages per CPU second."""
    data = Path(os.environ["SPYHOP_DATA"])
    snippets = list(Snippets.all(data))
    folder = data / "html_article_extraction_benchmark"
    gold = json.loads((folder / "ground-truth.json").read_text())
    articles = [gzip.decompress((folder / f"html/{name}.html.gz").read_bytes()) for name in gold]
    pages = [page.data() for page in snippets] + articles
    speeds: dict[str, list[float]] = {name: [] for name in EXTRACTORS}
    found: dict[str, list[list[Block]]] = {}
    for _ in range(ROUNDS):
        for name, extractor in EXTRACTORS.items():
            if extractor is _ours_new:
                scan._KNOWN.clear()  # no tag is known, as in a new process
            started = time.process_time()
            found[name] = [extractor(page) for page in pages]
            speeds[name].append(len(pages) / (time.process_time() - started))
    first: list[np.ndarray] = []
    for name, blocks in found.items():
        counts = [
            page.count("\n".join(each.text for each in own))
            for page, own in zip(snippets, blocks, strict=False)
        ]
        scores = [
            article_scores(row["articleBody"], own)
            for row, own in zip(gold.values(), blocks[len(snippets) :], strict=True)
        ]
        samples = bootstrap(counts, scores)
        first = first or samples
        rates = ", ".join(f"{value:.0f}" for value in sorted(speeds[name]))
        print(f"{name}: {statistics.median(speeds[name]):.0f} pages/s ({rates})")
        print(*summary(counts, scores, samples, first), sep="\n")


if __name__ == "__main__":
    main()
