import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import toys
from spyhop.models import Replay
from spyhop.recipe import Recipe, Source, Use, resolve, run
from spyhop.recipe.events import RunEvent
from spyhop.recipe.plan import plan
from spyhop.recipe.run import News, Workers
from spyhop.recipe.why import why
from spyhop.runtime import Resources, Runtime
from spyhop.schema import ArtifactError, InputError, RecipeError
from spyhop.store import Artifact, pointed
from toys import Number, Numbers, Sum

NAMES = ("left", "right", "odd", "sum")


class Seen:
    """Remembers the events of a run."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.hits: list[str] = []
        self.begun: list[str] = []
        self.notes: list[str] = []

    def __call__(self, event: RunEvent) -> None:
        if event.kind == "step_started":
            self.begun.append(event.step)
        elif event.kind == "note":
            self.notes.append(event.text)
        elif event.kind == "progress":
            assert event.step in self.begun
        elif event.kind == "step_ended":
            (self.hits if event.is_reused else self.made).append(event.step)


def _recipe(
    folder: Path, *, num_rows: int = 3, seconds: float = 0.0, broken: bool = False
) -> Recipe:
    r = Recipe("toy")
    file = Source(folder / "input.txt")
    log = str(folder / "log")
    left = r.add("left", toys.numbers, Numbers(num_rows=num_rows, log=log, seconds=seconds))
    right = r.add("right", toys.lines, Numbers(log=log, seconds=seconds), file=file)
    odd = r.add("odd", toys.odd_only, Numbers(), rows=right)
    broken_while = str(folder / "broken") if broken else ""
    r.add(
        "sum", toys.added, Sum(log=log, broken_while=broken_while), parts={"one": left, "two": odd}
    )
    return r


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "input.txt").write_text("1 2 3")
    return tmp_path


def _run(folder: Path, recipe: Recipe, workers: int = 1) -> Seen:
    seen = Seen()
    made = run(resolve(recipe, folder / "out"), Runtime(workers=workers), seen)
    assert set(made) == {step.name for step in recipe.steps}
    return seen


def _sum(folder: Path) -> int:
    path = pointed(folder / "out", "toy", "sum")
    assert path is not None
    (found,) = [a for a in resolve(_recipe(folder), folder / "out").made.values() if a.path == path]
    (row,) = found.rows(Number)
    return row.value


def _why(folder: Path, recipe: Recipe) -> dict[str, list[str]]:
    resolved = resolve(recipe, folder / "out")
    return {step.name: why(resolved, step) for step in recipe.steps}


@pytest.mark.parametrize("workers", [1, 2])
def test_steps_have_resources_of_their_own_and_they_are_no_part_of_a_key(
    folder: Path, workers: int
):
    recipe = Recipe("toy")
    for name in ("few", "many"):
        recipe.add(name, toys.threads, Numbers(log=name))
    made = run(resolve(recipe, folder / "out"), Runtime(), Seen())
    assert [row.value for each in made.values() for row in each.rows(Number)] == [1, 1]
    shutil.rmtree(made["many"].path)
    runtime = Runtime(workers=workers, threads=2, steps={"many": {"threads": 5}})
    again = run(resolve(recipe, folder / "out"), runtime, Seen())
    assert {name: each.path for name, each in again.items()} == {n: a.path for n, a in made.items()}
    assert [row.value for each in again.values() for row in each.rows(Number)] == [1, 5]


def test_resources_of_a_step_that_a_recipe_does_not_have_are_refused(folder: Path):
    with pytest.raises(RecipeError, match=r"^runtime\.steps\.sun: .* did you mean 'sum'\?$"):
        run(resolve(_recipe(folder), folder), Runtime(steps={"sun": Resources()}), Seen())


def test_every_node_is_made_once_and_then_found(folder: Path):
    seen = _run(folder, _recipe(folder))
    assert sorted(seen.made) == ["left", "odd", "right", "sum"] and seen.hits == []
    assert seen.made.index("right") < seen.made.index("odd") < seen.made.index("sum")
    assert _sum(folder) == 0 + 1 + 2 + 1 + 3
    again = _run(folder, _recipe(folder))
    assert again.made == again.begun == [] and len(again.hits) == 4
    assert len(toys.told(folder / "log")) == 3


def test_workers_are_processes_of_their_own_and_give_the_same(folder: Path):
    _run(folder, _recipe(folder, seconds=0.3), workers=2)
    processes = {line.split()[1] for line in toys.told(folder / "log")}
    assert str(os.getpid()) not in processes and len(processes) == 2
    there = resolve(_recipe(folder, seconds=0.3), folder / "out").made
    elsewhere = resolve(_recipe(folder, seconds=0.3), folder / "other")
    here = run(elsewhere, Runtime(), Seen())
    assert {name: a.digest for name, a in here.items()} == {n: a.digest for n, a in there.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_stops_the_run_and_keeps_what_is_made(folder: Path, workers: int):
    (folder / "broken").touch()
    recipe = _recipe(folder, broken=True)
    with pytest.raises(InputError, match="the toy is broken"):
        _run(folder, recipe, workers)
    assert pointed(folder / "out", "toy", "sum") is None
    (folder / "broken").unlink()
    again = _run(folder, recipe, workers)
    assert again.made == ["sum"] and sorted(again.hits) == ["left", "odd", "right"]


def test_an_unexpected_fault_in_a_worker_keeps_its_trace(folder: Path):
    (folder / "input.txt").write_text("one")
    with pytest.raises(RuntimeError, match=r"(?s)right:.*Traceback.*ValueError.*'one'"):
        _run(folder, _recipe(folder), workers=2)


def test_a_worker_that_dies_is_one_clear_line(folder: Path):
    r = Recipe("toy")
    r.add("dies", toys.killed, Numbers())
    with pytest.raises(ArtifactError, match=r"dies: worker process died \(killed by SIGKILL"):
        _run(folder, r, workers=2)


def test_a_node_that_is_gone_is_forgotten(folder: Path):
    _run(folder, _recipe(folder))
    r = Recipe("toy")
    r.add("left", toys.numbers, Numbers(log=str(folder / "log")))
    seen = _run(folder, r)
    assert seen.hits == ["left"]
    links = [p.name for p in (folder / "out" / "runs" / "toy").iterdir() if p.is_symlink()]
    assert links == ["left"]


def test_why_nothing_was_made_and_nothing_changed(folder: Path):
    assert _why(folder, _recipe(folder)) == {name: ["it was never made here"] for name in NAMES}
    _run(folder, _recipe(folder))
    assert _why(folder, _recipe(folder)) == {name: [] for name in NAMES}


def test_why_an_edited_field(folder: Path):
    _run(folder, _recipe(folder))
    reasons = _why(folder, _recipe(folder, num_rows=4))
    assert reasons == {
        "left": ["num_rows: 3 became 4"],
        "right": [],
        "odd": [],
        "sum": ["left runs again"],
    }
    assert _run(folder, _recipe(folder, num_rows=4)).made == ["left", "sum"]


def test_why_an_edited_file(folder: Path):
    _run(folder, _recipe(folder))
    (folder / "input.txt").write_text("1 2 5")
    reasons = _why(folder, _recipe(folder))
    file = folder / "input.txt"
    assert reasons["right"] == [f"file: the content of {file} changed"]
    assert reasons["left"] == [] and reasons["odd"] == ["right runs again"]
    assert sorted(_run(folder, _recipe(folder)).made) == ["odd", "right", "sum"]
    assert _sum(folder) == 0 + 1 + 2 + 1 + 5


def test_why_a_removed_artifact(folder: Path):
    _run(folder, _recipe(folder))
    path = pointed(folder / "out", "toy", "left")
    assert path is not None
    (path / "record.json").unlink()
    reasons = _why(folder, _recipe(folder))
    assert reasons["left"] == ["what the last run made is gone"]
    assert reasons["sum"] == ["left runs again"]
    assert _run(folder, _recipe(folder)).made == ["left"]  # made again with the same content


def _asking(*, num_rows: int = 3) -> Recipe:
    r = Recipe("toy")
    recorded = r.add("recorded", toys.recorded, Numbers(num_rows=num_rows))
    r.add("asked", toys.replies, Numbers(), model=Use(Replay(), recorded))
    return r


def test_why_a_model_whose_folder_is_made_again(folder: Path):
    _run(folder, _asking())
    again = {"recorded": ["num_rows: 3 became 4"], "asked": ["recorded runs again"]}
    assert _why(folder, _asking(num_rows=4)) == again
    path = pointed(folder / "out", "toy", "recorded")
    assert path is not None
    shutil.rmtree(path)
    gone = {"recorded": ["what the last run made is gone"], "asked": ["recorded runs again"]}
    assert _why(folder, _asking()) == gone
    assert _run(folder, _asking()).made == ["recorded"]


@pytest.mark.parametrize(("num", "more"), [(3, []), (5, ["so do 2 other inputs"])])
def test_why_names_three_of_many_inputs(folder: Path, num: int, more: list[str]):
    def recipe(num_rows: int) -> Recipe:
        r = Recipe("toy")
        parts = {
            f"part {n}": r.add(f"n{n}", toys.numbers, Numbers(num_rows=num_rows + n))
            for n in range(num)
        }
        r.add("sum", toys.added, Sum(), parts=parts)
        return r

    _run(folder, recipe(1))
    reasons = _why(folder, recipe(11))["sum"]
    assert reasons == [*(f"n{n} runs again" for n in range(3)), *more]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_run_returns_is_what_its_workers_made(folder: Path, workers: int):
    """Even where a file is edited after it was read: the next run sees that."""

    class Editing(Seen):
        def __call__(self, event: RunEvent) -> None:
            super().__call__(event)
            if event.kind == "step_ended" and event.step == "right":
                (folder / "input.txt").write_text("1 2 5")

    made = run(resolve(_recipe(folder), folder / "out"), Runtime(workers=workers), Editing())
    assert set(made) == set(NAMES)
    assert [row.value for row in made["sum"].rows(Number)] == [0 + 1 + 2 + 1 + 3]
    assert sorted(_run(folder, _recipe(folder), workers).made) == ["odd", "right", "sum"]
    assert _sum(folder) == 0 + 1 + 2 + 1 + 5


def test_what_is_freed_at_once_was_made_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch):
    whole = Workers.news

    def news(workers: Workers) -> Iterator[tuple[str, News]]:
        for step, each in whole(workers):
            if isinstance(each, Artifact):
                shutil.rmtree(each.path)  # by another process, before we look
            yield step, each

    monkeypatch.setattr(Workers, "news", news)
    r = Recipe("toy")
    r.add("left", toys.numbers, Numbers())
    made = run(resolve(r, folder / "out"), Runtime(workers=2), Seen())
    assert made["left"].num_rows == 3


def test_a_plan_runs_nothing(folder: Path):
    lines = plan(resolve(_recipe(folder), folder / "out"))
    assert [(line.step.name, line.is_made) for line in lines] == [
        ("left", False), ("right", False), ("odd", False), ("sum", False),
    ]  # fmt: skip
    assert lines[0].estimate.rows == 3
    assert sum(line.hours for line in lines if not line.is_made) == 7 / 3600
    assert lines[3].estimate.rows == 3  # of `left`; `odd` has no plan
    assert not (folder / "log").exists()


def test_a_plan_of_what_is_made_tells_what_it_took(folder: Path):
    _run(folder, _recipe(folder))
    lines = plan(resolve(_recipe(folder, num_rows=9), folder / "out"))
    assert [line.is_made for line in lines] == [False, True, True, False]
    assert lines[1].estimate.rows == 3
    assert sum(line.estimate.rows for line in lines if not line.is_made) == 9 + 11


def test_two_runs_at_once_share_the_work(folder: Path):
    from multiprocessing import get_context

    other = get_context("spawn").Process(target=_run_there, args=(folder,))
    other.start()
    while not (folder / "log").exists():
        time.sleep(0.01)
    _run(folder, _recipe(folder, seconds=0.5))
    other.join()
    assert other.exitcode == 0 and len(toys.told(folder / "log")) == 3


def _run_there(folder: Path) -> None:
    _run(folder, _recipe(folder, seconds=0.5))
