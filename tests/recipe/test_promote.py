"""Rounds that stop: what a promote step chooses decides the keys of what follows."""

import io
from pathlib import Path

import pytest
from rich.console import Console

import toys
from spyhop.models import Replay
from spyhop.recipe import Chosen, PromoteConfig, Recipe, Use, promote, resolve, run
from spyhop.recipe.events import RunEvent
from spyhop.recipe.plan import plan
from spyhop.recipe.promote import read_promotion
from spyhop.recipe.watch import plan_table
from spyhop.recipe.why import why
from spyhop.schema import Config, InputError, Row
from spyhop.stage import Context, Runtime, stage
from spyhop.store import Artifact
from toys import Number, Numbers, Sum


class Right(Config):
    """Which of `num` items are right: the first `right` ones."""

    right: int
    num: int = 40


class Outcome(Row):
    value: float


@stage(version=1, writes=Outcome)
def graded(ctx: Context, config: Right):
    for place in range(config.num):
        yield Outcome(id=str(place), value=float(place < config.right))


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


def _rounds(
    log: Path, *, second: int = 30, rule: str = "better", then: Path | None = None
) -> Recipe:
    """Two models, a choice, and a second round that starts from the chosen one."""
    r = Recipe("rounds")
    m0 = r.add("m0", toys.numbers, Numbers(num_rows=1, log=str(log)))
    m1 = r.add("m1", toys.added, Sum(log=str(log)), parts={"one": m0, "two": m0})
    scores = [
        r.add(name, graded, Right(right=right))
        for name, right in (("scores-m0", 10), ("scores-m1", second))
    ]
    by = r.add("promoted", promote, PromoteConfig(rule=rule), before=scores[0], after=scores[1])
    better = Chosen(by, before=m0, after=m1)
    m2 = r.add("m2", toys.added, Sum(log=str(then or log)), parts={"one": better, "two": better})
    r.add("end", toys.odd_only, Numbers(), rows=m2)
    return r


def _go(folder: Path, recipe: Recipe, workers: int = 1) -> tuple[Seen, dict[str, Artifact]]:
    seen = Seen()
    return seen, run(resolve(recipe, folder / "out"), Runtime(workers=workers), seen)


def test_the_better_model_goes_on(tmp_path: Path):
    seen, made = _go(tmp_path, _rounds(tmp_path / "log"))
    assert read_promotion(made["promoted"]).chosen == "after"
    assert [each.key for each in made["m2"].record.inputs["parts"]] == [made["m1"].key] * 2
    assert [each.name for each in made["m2"].record.inputs["parts"]] == ["m1", "m1"]
    assert made["m2"].key != made["m1"].key and "m2" in seen.made
    assert any("better: +0.5" in note for note in seen.notes)
    again, _ = _go(tmp_path, _rounds(tmp_path / "log"))
    assert again.made == [] and len(again.hits) == 7


@pytest.mark.parametrize("workers", [1, 2])
def test_a_round_that_is_not_better_costs_nothing_more(tmp_path: Path, workers: int):
    """The earlier model wins; what follows from it is finished."""
    seen, made = _go(tmp_path, _rounds(tmp_path / "log", second=11), workers)
    assert read_promotion(made["promoted"]).chosen == "before"
    assert made["m2"].key == made["m1"].key and "m2" in seen.hits
    assert len(toys.told(tmp_path / "log")) == 2
    assert any("not promoted" in note for note in seen.notes)


@pytest.mark.parametrize(
    ("rule", "second", "chosen"),
    [
        ("better", 10, "before"),
        ("not_worse", 10, "after"),
        ("not_worse", 1, "before"),
        ("always", 1, "after"),
    ],
)
def test_rules(tmp_path: Path, rule: str, second: int, chosen: str):
    _, made = _go(tmp_path, _rounds(tmp_path / "log", second=second, rule=rule))
    found = read_promotion(made["promoted"])
    assert found.chosen == chosen and found.num_items == 40


def test_scores_that_changed_change_what_follows(tmp_path: Path):
    recipe = _rounds(tmp_path / "log")
    _go(tmp_path, recipe)
    other = _rounds(tmp_path / "log", second=11)
    resolved = resolve(other, tmp_path / "out")
    reasons = {step.name: why(resolved, step) for step in other.steps}
    assert reasons["m1"] == [] and reasons["scores-m1"] == ["right: 30 became 11"]
    assert reasons["promoted"] == ["scores-m1 runs again"]
    assert reasons["m2"] == reasons["end"] == ["waiting for promoted to be decided"]
    _go(tmp_path, other)
    resolved = resolve(recipe, tmp_path / "out")  # back again: all is there
    assert {step.name: why(resolved, step) for step in recipe.steps} == {
        step.name: [] for step in recipe.steps
    }


def test_why_names_the_model_that_was_chosen(tmp_path: Path):
    _go(tmp_path, _rounds(tmp_path / "log"))
    changed = _rounds(tmp_path / "log", second=11)
    resolved = resolve(changed, tmp_path / "out")
    for name in ("scores-m1", "promoted"):
        step = changed.step(name)
        step.stage.run(tmp_path / "out", step.config, **resolved.inputs(step))
        resolved.refresh(step)
    again = _rounds(tmp_path / "log", second=11, then=tmp_path / "other")
    resolved = resolve(again, tmp_path / "out")
    assert "parts: m0 in place of m1" in why(resolved, again.step("m2"))


def test_a_plan_tells_what_hangs_on_a_choice(tmp_path: Path):
    recipe = _rounds(tmp_path / "log")
    lines = {line.step.name: line for line in plan(resolve(recipe, tmp_path / "out"))}
    assert {name for name, line in lines.items() if line.waits_for} == {"m2", "end"}
    assert lines["m2"].waits_for == ("promoted",)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(plan_table(list(lines.values())))
    shown = console.export_text()
    assert "waiting for promoted to be decided" in shown
    assert "remaining, certain" in shown and "remaining, at most" in shown
    _go(tmp_path, recipe)
    assert not any(line.waits_for for line in plan(resolve(recipe, tmp_path / "out")))


def test_a_model_behind_a_choice_is_asked(tmp_path: Path):
    r = Recipe("asked")
    folders = [r.add(f"r{num}", toys.recorded, Numbers(num_rows=num)) for num in (2, 3)]
    scores = [r.add(f"s{right}", graded, Right(right=right)) for right in (10, 30)]
    by = r.add("promoted", promote, PromoteConfig(), before=scores[0], after=scores[1])
    better = Chosen(by, before=folders[0], after=folders[1])
    r.add("asked", toys.replies, Numbers(num_rows=3), model=Use(Replay(), better))
    _, made = _go(tmp_path, r)
    assert [row.value for row in made["asked"].rows(Number)] == [0, 1, 2]
    assert made["asked"].record.inputs["model"][0].name == "recorded answers (r3)"


def test_a_choice_of_choices(tmp_path: Path):
    """Neither round is better: the first model stands at the end."""
    r = Recipe("chain")
    models = [r.add(f"m{n}", toys.numbers, Numbers(num_rows=n + 1)) for n in range(3)]
    scores = [r.add(f"s{n}", graded, Right(right=20 - n)) for n in range(3)]
    best: Chosen | object = models[0]
    for n in (1, 2):
        by = r.add(f"promoted-{n}", promote, PromoteConfig(), before=scores[n - 1], after=scores[n])
        best = Chosen(by, before=best, after=models[n])
    r.add("end", toys.added, Sum(), parts={"one": best})
    resolved = resolve(r, tmp_path / "out")
    assert resolved.undecided()["end"] == ["promoted-1", "promoted-2"]
    _, made = _go(tmp_path, r)
    assert made["end"].record.inputs["parts"][0].name == "m0"


def test_without_items_in_common_there_is_nothing_to_judge(tmp_path: Path):
    r = Recipe("none")
    scores = [r.add(f"s{num}", graded, Right(right=0, num=num)) for num in (1, 2)]
    r.add("promoted", promote, PromoteConfig(), before=scores[0], after=scores[1])
    with pytest.raises(InputError, match="the two models have 1 items in common"):
        _go(tmp_path, r)
