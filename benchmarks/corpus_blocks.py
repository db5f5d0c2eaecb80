"""Fit the trees that choose main text, and measure them on sites that they were not fitted to.

    pip install lightgbm
    SPYHOP_DATA=... python benchmarks/corpus_blocks.py folds  # five folds over sites
    SPYHOP_DATA=... python benchmarks/corpus_blocks.py fit    # writes corpus/blocks.json

Labels of blocks: an article's gold text (181 pages), the text that readability's authors expect
(some 110), and the snippets of 346 pages that must and must not be there. The other blocks of those
346 pages count little, with what trafilatura keeps as their label. Made pages (`corpus_made.py`)
add kinds that these hold few of. One fit takes about ten seconds.
"""

import argparse
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import corpus_made
import lightgbm
import numpy as np
import trafilatura
from corpus_pages import Snippets, article_scores, bootstrap, plain, summary, theirs

from spyhop.corpus.blocks import MIN_PROBABILITY, Trees, chosen, features, matrix
from spyhop.corpus.charset import decode
from spyhop.corpus.formulas import with_formulas
from spyhop.corpus.scan import Block, Scan, scan

DATA = Path(os.environ["SPYHOP_DATA"])
MODEL = Path(__file__).parents[1] / "src/spyhop/corpus/blocks.json"
NUM_FOLDS = 5
PROBABILITIES = (0.35, 0.4, 0.45, 0.5, 0.55)
PAGE_WEIGHTS = {"article": 10.0, "readability": 3.0, "snippets": 3.0, "made": 1.5}
"""What all blocks of a page with such labels weigh together; a snippet weighs 1."""
NUM_MADE = 300
NUM_TREES = 130
SETTINGS: dict[str, Any] = {
    "objective": "binary", "num_leaves": 8, "learning_rate": 0.12, "min_sum_hessian_in_leaf": 1.0,
    "feature_fraction": 0.3, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0,
    "boost_from_average": False, "seed": 1, "num_threads": 1, "deterministic": True, "verbose": -1,
}  # fmt: skip


@dataclass(frozen=True)
class LabelledPage:
    """A page, its blocks as numbers, and what is known of them."""

    site: str
    kind: str
    scan: Scan
    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    data: bytes
    gold: "str | Snippets"


def pages() -> Iterator[LabelledPage]:
    """Yield all pages that have labels."""
    folder = DATA / "html_article_extraction_benchmark"
    for name, row in sorted(json.loads((folder / "ground-truth.json").read_text()).items()):
        data = gzip.decompress((folder / f"html/{name}.html.gz").read_bytes())
        yield _dense(urlsplit(row["url"]).netloc, "article", data, row["articleBody"])
    for folder in sorted((DATA / "html_readability").iterdir()):
        if (folder / "source.html").exists():
            expected = scan(
                (folder / "expected.html").read_text(errors="replace"),
                max_nodes=100_000,
                max_depth=1000,
            )
            text = "\n".join(block.text for block in expected.blocks)
            yield _dense(folder.name, "readability", (folder / "source.html").read_bytes(), text)
    for page in Snippets.all(DATA):
        yield _sparse(page)
    for number, (html, gold) in enumerate(corpus_made.pages(NUM_MADE, seed=0)):
        yield _dense(f"made {number}", "made", html.encode(), gold)


def _dense(site: str, kind: str, data: bytes, gold: str) -> LabelledPage:
    found = _scanned(data)
    labels = labels_by_text(found.blocks, gold)
    weights = _spread(found.blocks, PAGE_WEIGHTS[kind])
    return LabelledPage(site, kind, found, _rows(found), labels, weights, data, gold)


def _sparse(page: Snippets) -> LabelledPage:
    data = page.data()
    found = _scanned(data)
    text = trafilatura.extract(data, include_comments=False) or ""
    labels = labels_by_text(found.blocks, text)
    weights = _spread(found.blocks, PAGE_WEIGHTS["snippets"])
    texts = [plain(block.text) for block in found.blocks]
    for snippet in page.unwanted:
        for at in (at for at, text in enumerate(texts) if snippet in text):
            labels[at], weights[at] = 0, 1
    for snippet in page.wanted:
        held = [at for at, text in enumerate(texts) if snippet in text]
        if held and not any(labels[at] and weights[at] == 1 for at in held):
            at = max(held, key=lambda at: len(texts[at]))
            labels[at], weights[at] = 1, 1
    return LabelledPage(page.site, "snippets", found, _rows(found), labels, weights, data, page)


def _scanned(data: bytes) -> Scan:
    return scan(with_formulas(decode(data, "")), max_nodes=100_000, max_depth=1000)


def _rows(found: Scan) -> np.ndarray:
    return matrix(found, tuple(features(found))) if found.blocks else np.zeros((0, 0), np.float32)


def _spread(blocks: Sequence[Block], total: float) -> np.ndarray:
    """Share a page's weight between its blocks by their length, within bounds."""
    sizes = np.array([min(len(block.text), 300) + 60 for block in blocks], float)
    return sizes / max(1.0, sizes.sum()) * total


def labels_by_text(blocks: Sequence[Block], gold: str) -> np.ndarray:
    """Return 1 for each block whose words, three by three, are mostly in the gold text."""
    known = set(_triples(gold))
    words, lines = " ".join(_words(gold)), {" ".join(_words(line)) for line in gold.splitlines()}
    labels = []
    for block in blocks:
        text = block.text.partition(" ")[2] if block.kind == "item" else block.text
        own, joined = _triples(text), " ".join(_words(text))
        if len(own) >= 3:
            labels.append(sum(each in known for each in own) > 0.6 * len(own))
        else:
            labels.append(joined in lines - {""} or (len(joined) > 12 and joined in words))
    return np.array(labels, float)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _triples(text: str) -> list[tuple[str, ...]]:
    words = _words(text)
    return [tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))]


def fit(known: Sequence[LabelledPage]) -> Trees:
    """Boost trees on the log loss of all labelled blocks."""
    columns = tuple(features(known[0].scan))
    used = [page for page in known if len(page.labels)]
    rows = np.concatenate([page.rows for page in used])
    labels = np.concatenate([page.labels for page in used])
    weights = np.concatenate([page.weights for page in used])
    data = lightgbm.Dataset(rows, labels, weight=weights / weights.mean())
    model = lightgbm.train(SETTINGS, data, NUM_TREES)
    return _trees(columns, [each["tree_structure"] for each in model.dump_model()["tree_info"]])


def _trees(columns: tuple[str, ...], roots: Sequence[dict[str, Any]]) -> Trees:
    """Write trees as masks; leaves are numbered from the side of those that pass."""
    places, bounds, masks, values = [], [], [], []
    for root in roots:
        leaves: list[float] = []
        questions: list[tuple[int, float, int]] = []
        _walk(root, leaves, questions)
        questions += [(0, np.inf, 0)] * (SETTINGS["num_leaves"] - 1 - len(questions))
        for place, bound, ruled_out in questions:
            places.append(place)
            bounds.append(_below(bound))
            masks.append(0xFF & ~ruled_out)
        values.append(leaves + [0.0] * (SETTINGS["num_leaves"] - len(leaves)))
    kind = np.float32
    arrays = np.array(places), np.array(bounds, kind), np.array(masks, np.uint8)
    return Trees(columns, *arrays, np.array(values, kind))


def _walk(
    node: dict[str, Any], leaves: list[float], questions: list[tuple[int, float, int]]
) -> None:
    if "leaf_value" in node:
        leaves.append(node["leaf_value"])
        return
    first = len(leaves)
    _walk(node["left_child"], leaves, questions)
    passed = sum(1 << leaf for leaf in range(first, len(leaves)))
    questions.append((node["split_feature"], node["threshold"], passed))
    _walk(node["right_child"], leaves, questions)


def _below(bound: float) -> float:
    """Round a bound to four digits."""
    return float(f"{bound:.4g}")


def cross_validate(known: Sequence[LabelledPage]) -> None:
    """Print the figures of trees on sites that they were not fitted to, on their own, and the peer.

    Intervals are over pages, of each and of the difference from trafilatura.
    """
    folds = [zlib.crc32(page.site.encode()) % NUM_FOLDS for page in known]
    held_out: list[np.ndarray] = [np.zeros(0)] * len(known)
    for fold in range(NUM_FOLDS):
        model = fit([page for page, own in zip(known, folds, strict=True) if own != fold])
        for at, page in enumerate(known):
            if folds[at] == fold:
                held_out[at] = _chances(model, page)
    model = fit(known)
    own = [_chances(model, page) for page in known]
    real = [page for page in known if page.kind in ("article", "snippets")]
    peer = [theirs(page.data, include_comments=False) for page in real]
    texts = {"trafilatura, no comments": peer}
    texts |= {f"held out, from {bound}": _texts(known, held_out, bound) for bound in PROBABILITIES}
    texts[f"fitted, from {MIN_PROBABILITY}"] = _texts(known, own, MIN_PROBABILITY)
    first: list[np.ndarray] = []
    for name, blocks in texts.items():
        counts = [
            page.gold.count("\n".join(each.text for each in shown))
            for page, shown in zip(real, blocks, strict=True)
            if isinstance(page.gold, Snippets)
        ]
        scores = [
            article_scores(page.gold, shown)
            for page, shown in zip(real, blocks, strict=True)
            if isinstance(page.gold, str)
        ]
        samples = bootstrap(counts, scores)
        first = first or samples
        print(name, *summary(counts, scores, samples, first), sep="\n  ", flush=True)


def _texts(
    known: Sequence[LabelledPage], chances: Sequence[np.ndarray], bound: float
) -> list[list[Block]]:
    """Return the main text of each article and page with snippets."""
    return [
        chosen(page.scan, chance.tolist(), bound)
        for page, chance in zip(known, chances, strict=True)
        if page.kind in ("article", "snippets")
    ]


def _chances(model: Trees, page: LabelledPage) -> np.ndarray:
    return model.probabilities(page.rows) if len(page.labels) else np.zeros(0)


def write(known: Sequence[LabelledPage]) -> None:
    """Fit to all pages and write the trees."""
    model = fit(known)
    used = sorted(set(model.places.tolist()))
    flat = [
        [model.columns[place], float(f"{bound:.4g}"), mask]
        for place, bound, mask in zip(
            model.places.tolist(), model.bounds.tolist(), model.masks.tolist(), strict=True
        )
        for bound in (min(bound, 1e9),)
    ]
    size = len(flat) // len(model.values)
    trees = [flat[at : at + size] for at in range(0, len(flat), size)]
    values = [[float(f"{value:.4g}") for value in tree] for tree in model.values.tolist()]
    MODEL.write_text(
        f'{{"columns": {json.dumps([model.columns[at] for at in used])},\n"questions": [\n'
        + ",\n".join(json.dumps(tree) for tree in trees)
        + '],\n"values": [\n'
        + ",\n".join(json.dumps(row) for row in values)
        + "]}\n"
    )


COMMANDS: dict[str, Callable[[Sequence[LabelledPage]], None]] = {
    "folds": cross_validate,
    "fit": write,
}


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=COMMANDS)
    COMMANDS[parser.parse_args().what](list(pages()))


if __name__ == "__main__":
    main()
