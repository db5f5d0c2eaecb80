"""Shards of a run: parts by number alone, no locks, and what one process would have made."""

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

import toys
from corpus.pages import write_articles
from spyhop.corpus import SegmentConfig, segment
from spyhop.models import base as model_base
from spyhop.recipe import Recipe, Source, Use, resolve, run
from spyhop.recipe.graph import has_parts, num_rounds
from spyhop.recipe.resolve import Resolved
from spyhop.runtime import Runtime, Shard
from spyhop.schema import ArtifactError, RecipeError, Unfinished
from spyhop.store import Artifact
from toys import Numbers, Sum


def _recipe(log: Path, num_rows: int = 50) -> Recipe:
    """A step without parts, one with parts, and one without behind both."""
    r = Recipe("toy")
    before = r.add("before", toys.numbers, Numbers(num_rows=2, log=str(log) + "-steps"))
    model = Use(toys.Computed(log=str(log)))
    asked = r.add("asked", toys.asked_twice, Numbers(num_rows=num_rows), model=model)
    r.add("after", toys.added, Sum(log=str(log) + "-steps"), parts={"one": before})
    assert [has_parts(step) for step in (before, asked)] == [False, True]
    return r


def _round(root: Path, recipe: Recipe, shards: Iterable[int], total: int) -> dict[int, str]:
    """Run shards one after the other; return what each waits for."""
    waits = {}
    for number in shards:
        try:
            run(resolve(recipe, root), Runtime(), shard=Shard(number, total))
        except Unfinished as error:
            waits[number] = str(error)
    return waits


def _made(root: Path, recipe: Recipe) -> dict[str, Artifact]:
    resolved: Resolved = resolve(recipe, root)
    assert len(resolved.made) == len(recipe.steps)
    return resolved.made


def _digests(made: dict[str, Artifact]) -> dict[str, str]:
    return {name: artifact.digest for name, artifact in made.items()}


@pytest.mark.parametrize("total", [1, 2, 8])
@pytest.mark.parametrize("window", [7, 4096])
def test_shards_make_what_one_process_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, window: int
):
    """Also where a reply depends on its batch, requests repeat, and some fail."""
    monkeypatch.setattr(model_base.Model, "window", window)
    recipe = _recipe(tmp_path / "log")
    run(resolve(recipe, tmp_path / "one"), Runtime())
    alone = toys.told(tmp_path / "log")
    (tmp_path / "log").unlink()
    numbers = list(range(1, total + 1))
    for turn in range(10):
        random.Random(turn).shuffle(numbers)
        if not _round(tmp_path / "many", recipe, numbers, total):
            break
    else:
        raise AssertionError("no end")
    made = _made(tmp_path / "many", recipe)
    assert _digests(made) == _digests(_made(tmp_path / "one", recipe))
    assert made["asked"].record.usage == _made(tmp_path / "one", recipe)["asked"].record.usage
    if window > 50:  # else a repeated request may be due in two windows of two shards
        assert Counter(toys.told(tmp_path / "log")) == Counter(alone)
    assert toys.told(Path(f"{tmp_path / 'log'}-steps")).count(f"numbers {os.getpid()}") == 2


def test_a_run_that_is_no_shard_takes_up_what_shards_made(tmp_path: Path):
    recipe, root = _recipe(tmp_path / "log"), tmp_path / "store"
    waits = _round(root, recipe, [1, 3], 4)
    assert "of shard 2: " in waits[1] and "of shard 4: " in waits[1]
    computed = toys.told(tmp_path / "log")
    run(resolve(recipe, root), Runtime())
    lines = Counter(toys.told(tmp_path / "log"))
    failed = [line for line in computed if any(i in line.split() for i in ("15", "16", "17"))]
    assert all(
        lines[line] == 1 for line in computed if line not in failed
    )  # G3: failures are not kept
    assert not list(root.glob(".journal/*.parts/*"))
    assert not [path for path in root.glob(".partial/*") if path.is_dir()]


def test_shards_without_parts_make_the_other_steps_alone(tmp_path: Path):
    recipe, root = _recipe(tmp_path / "log"), tmp_path / "store"
    waits = _round(root, recipe, [2], 2)
    assert "before (by shard 1)" in waits[2]
    assert set(resolve(recipe, root).made) == set()
    waits = _round(root, recipe, [0], 2)
    assert set(resolve(recipe, root).made) == {"before", "after"}
    lines = toys.told(tmp_path / "log")
    assert lines and len(lines) == len(set(lines))  # of shard 2 alone
    assert num_rounds(recipe) == 1


def test_no_lock_is_taken_for_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe, root = _recipe(tmp_path / "log"), tmp_path / "store"
    _round(root, recipe, [0], 3)

    acquire = FileLock.acquire

    def checked(lock: FileLock, *given: object, **options: object) -> object:
        assert not Path(lock.lock_file).is_relative_to(root)
        return acquire(lock, *given, **options)

    monkeypatch.setattr(FileLock, "acquire", checked)
    for numbers in itertools.repeat([1, 2, 3], 4):
        waits = _round(root, recipe, numbers, 3)
    assert not waits and not list(root.glob(".journal/*.lock"))


def test_a_changed_reply_is_one_line(tmp_path: Path):
    recipe, root = _recipe(tmp_path / "log"), tmp_path / "store"
    _round(root, recipe, [1], 2)
    path = next(root.glob(".journal/*.parts/*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b"Question", b"Quastion", 1))
    with pytest.raises(ArtifactError, match=r"its content is not what was written; delete it"):
        _round(root, recipe, [2], 2)


@pytest.mark.parametrize("text", ["9/8", "0/0", "-1/8", "8", "1/8/2", "a/b", ""])
def test_a_shard_that_cannot_be_is_one_line(text: str):
    with pytest.raises(RecipeError, match=r"--shard .*: write 1/8 to 8/8"):
        Shard.of(text)


def _segments(folder: Path, inputs: Sequence[str]) -> Recipe:
    r = Recipe("pages")
    pages = {name: Source(folder / name) for name in inputs}
    r.add("segments", segment, SegmentConfig(), pages=pages)
    return r


def test_shards_of_a_corpus(tmp_path: Path):
    names = [f"in{n}" for n in range(5)]
    for name in names:
        write_articles(tmp_path / name, 3)
    recipe, root = _segments(tmp_path, names), tmp_path / "many"
    waits = _round(root, recipe, [2], 3)
    assert "3 of 5 parts are missing, of the shards 1, 3" in waits[2]
    assert not list(root.glob("corpus.segment-*"))
    (tmp_path / "in4/late.html").write_text(
        "<p>Nothing of length.</p>"
    )  # other content, other parts
    assert not _round(root, recipe, [3, 1, 2], 3).keys() - {3, 1}
    here = run(resolve(recipe, tmp_path / "one"), Runtime())
    assert _made(root, recipe)["segments"].digest == here["segments"].digest
    assert here["segments"].num_rows == 15
