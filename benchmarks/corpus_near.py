"""Near duplicates: spyhop, datasketch and datatrove on generated documents with planted copies.

    python benchmarks/corpus_near.py spyhop --documents 200000

One tool a run. A third of the documents have a copy with some words changed; the truth is the exact
Jaccard similarity of the 5-grams of a copy and its original, at or above 0.8.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from spyhop.text.overlap import Duplicates, NearConfig, hash_runs, words

THRESHOLD = 0.8
VOCABULARY = 20_000


def similarity(first: str, second: str) -> float:
    """Return the share of common runs of five words among all of the two texts."""
    one, two = (set(hash_runs([words(text)], 5)[0].tolist()) for text in (first, second))
    return len(one & two) / len(one | two)


def generate(num: int, seed: int = 0) -> tuple[list[str], dict[int, float]]:
    """Return the documents, and the true similarity of each planted copy to the one before it."""
    draw = np.random.default_rng(seed)
    names = np.array([f"w{n}" for n in range(VOCABULARY)])
    texts: list[str] = []
    planted: dict[int, float] = {}
    while len(texts) < num:
        ranks = draw.zipf(1.3, draw.integers(60, 400)) % VOCABULARY
        drawn = names[ranks]
        texts.append(" ".join(drawn))
        if draw.random() < 0.5 and len(texts) < num:
            changed = drawn.copy()
            share = draw.uniform(0.0, 0.06)
            places = np.flatnonzero(draw.random(len(drawn)) < share)
            changed[places] = [f"edit{n}" for n in draw.integers(0, 1 << 40, len(places))]
            texts.append(" ".join(changed))
            planted[len(texts) - 1] = similarity(texts[-2], texts[-1])
    return texts, planted


def spyhop(texts: list[str], folder: Path) -> set[int]:
    """Exact, then MinHash of 20 bands of 6, verified; DuckDB capped at 1 GB, one thread."""
    duplicates = Duplicates(folder, NearConfig(threshold=THRESHOLD), memory_mb=1024)
    duplicates.add(texts)
    found = {each.row for each in duplicates.find()}
    duplicates.close()
    return found


def datasketch(texts: list[str], folder: Path) -> set[int]:
    """MinHashLSH of 128 permutations at the same threshold: a text is dropped if one is found."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    dropped = set()
    for row, text in enumerate(texts):
        words = text.split()
        grams = {" ".join(words[at : at + 5]).encode() for at in range(max(1, len(words) - 4))}
        signature = MinHash(num_perm=128)
        signature.update_batch(grams)
        if index.query(signature):
            dropped.add(row)
        else:
            index.insert(str(row), signature)
    return dropped


def datatrove(texts: list[str], folder: Path) -> set[int]:
    """Its four MinHash steps with their defaults (14 bands of 8, 5-grams), one task each.

    But for numbers: by default they are all made one, and the generated words end in a number.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.text import TextNormConfig

    (folder / "in").mkdir()
    with (folder / "in/0.jsonl").open("w") as stream:
        for row, text in enumerate(texts):
            stream.write(json.dumps({"text": text, "id": str(row)}) + "\n")
    config = MinhashConfig(norm_config=TextNormConfig(norm_numbers=False))
    reader = JsonlReader(str(folder / "in"))
    steps = [
        [reader, MinhashDedupSignature(str(folder / "sigs"), config=config)],
        [MinhashDedupBuckets(str(folder / "sigs"), str(folder / "buckets"), config=config)],
        [MinhashDedupCluster(str(folder / "buckets"), str(folder / "removed"), config=config)],
        [
            reader,
            MinhashDedupFilter(str(folder / "removed")),
            JsonlWriter(str(folder / "kept"), compression=None),
        ],
    ]
    for place, pipeline in enumerate(steps):
        tasks = config.num_buckets if place == 1 else 1
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"log{place}")
        ).run()
    kept = {
        int(json.loads(line)["id"])
        for path in (folder / "kept").glob("*.jsonl")
        for line in path.read_text().splitlines()
    }
    return set(range(len(texts))) - kept


def main() -> None:
    """Time one tool and compare with the truth."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=("spyhop", "datasketch", "datatrove"))
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    texts, planted = generate(given.documents, given.seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    folder = Path(tempfile.mkdtemp())
    started = time.perf_counter()
    found = globals()[given.tool](texts, folder)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    true = {row for row, similarity in planted.items() if similarity >= THRESHOLD}
    # datatrove may keep the copy and drop the original: either ends a pair
    ended = {row for row in true if row in found or row - 1 in found}
    wrong = {row for row in found if row not in true and row + 1 not in true}
    print(
        f"{given.tool}: {given.documents:,} documents, {len(true):,} true copies: {seconds:.1f} s, "
        f"recall {len(ended) / len(true):.4f}, precision {1 - len(wrong) / len(found):.4f}, "
        f"{len(found):,} dropped, peak memory {before:,.0f} MB with the texts, then "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB"
    )


if __name__ == "__main__":
    main()
