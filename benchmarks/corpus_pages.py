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
from spyhop.corpus.extract import ExtractConfig, extract
from spyhop.corpus.scan import Block

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


def _theirs(page: bytes, **options: bool) -> list[Block]:
    text = trafilatura.extract(page, **options) or ""
    return [Block("text", text, 0, 0, 0)]


EXTRACTORS: dict[str, Callable[[bytes], list[Block]]] = {
    "spyhop": _ours,
    "spyhop, all tags new": _ours_new,
    "trafilatura": _theirs,
    "trafilatura, no comments": lambda page: _theirs(page, include_comments=False),
    "trafilatura, no comments, no tables": lambda page: _theirs(
        page, include_comments=False, include_tables=False
    ),
    "trafilatura, fast": lambda page: _theirs(page, fast=True, include_comments=False),
}


def _interval(values: np.ndarray) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{low:.3f} to {high:.3f}"


def _snippet_f1(counts: Sequence[Counts], samples: np.ndarray) -> np.ndarray:
    table = np.array([(each.hits, each.false_hits, each.misses) for each in counts])
    hits, false_hits, misses = table[samples].sum(1).T
    return 2 * hits / (2 * hits + false_hits + misses)


def _article_f1(scores: Sequence[tuple[float, float]], samples: np.ndarray) -> np.ndarray:
    precision, recall = np.array(scores)[samples].mean(1).T
    return 2 * precision * recall / (precision + recall)


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
    random = np.random.default_rng(0)
    drawn = random.integers(len(snippets), size=(NUM_SAMPLES, len(snippets)))
    drawn_articles = random.integers(len(gold), size=(NUM_SAMPLES, len(gold)))
    first: list[np.ndarray] = []
    for name, blocks in found.items():
        shown = [
            page.count("\n".join(each.text for each in own))
            for page, own in zip(snippets, blocks, strict=False)
        ]
        total = sum(shown, Counts())
        scores = [
            article_scores(row["articleBody"], own)
            for row, own in zip(gold.values(), blocks[len(snippets) :], strict=True)
        ]
        precision, recall = np.mean(scores, axis=0)
        samples = [_snippet_f1(shown, drawn), _article_f1(scores, drawn_articles)]
        first = first or samples
        rates = ", ".join(f"{value:.0f}" for value in sorted(speeds[name]))
        print(f"{name}: {statistics.median(speeds[name]):.0f} pages/s ({rates})")
        print(
            f"  snippets P {total.precision:.4f} R {total.recall:.4f} F1 {total.f1:.4f} "
            f"({_interval(samples[0])}), spyhop's less this {_interval(first[0] - samples[0])}"
        )
        print(
            f"  articles P {precision:.4f} R {recall:.4f} F1 {f1_of(precision, recall):.4f} "
            f"({_interval(samples[1])}), spyhop's less this {_interval(first[1] - samples[1])}"
        )


if __name__ == "__main__":
    main()
