"""The report of an experiment with arms, from scores and students that nobody trained."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import toys
from spyhop.report import ArmPair, ArmRun, ArmsConfig, arms_page
from spyhop.report.arm_figures import read_measured
from spyhop.report.arms import arms_table
from spyhop.report.html import PAGE, RESULTS
from spyhop.schema import Score
from spyhop.store import Artifact, Record

ARMS = ("plain", "reasons")
SEEDS = (0, 1)


def _scores(folder: Path, right: Sequence[bool]) -> Artifact:
    rows = [
        Score(
            id=f"i{place}", suite="world", task=("coin", "lift")[place % 2], response=f"<b>{place}",
            target="up", extracted="up", correct=is_right, chance=(0.5, 0.1)[place % 2],
            finish_reason="stop", response_tokens=1,
        )
        for place, is_right in enumerate(right)
    ]  # fmt: skip
    return toys.rows_artifact(folder, rows)


def _student(
    folder: Path, model: Path, *, tokens: int, seconds: float, record_s: float
) -> Artifact:
    """A folder as training leaves it; `record_s` is what its last, resumed part took."""
    shutil.copytree(model, folder)
    metrics = {"steps": 2, "tokens": tokens, "losses": [2.0, 1.0]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "logs").mkdir()
    (folder / "logs" / "speed.json").write_text(
        json.dumps({"seconds": seconds, "tokens_per_s": tokens / seconds})
    )
    record = Record(
        key=folder.name, stage="train.tune", version=2, config={}, inputs={}, digest=folder.name,
        counts={"tokens": tokens}, seconds=record_s,
    )  # fmt: skip
    return Artifact(folder, record)


def _right(skill: int) -> list[bool]:
    """Forty items of which the more skilled answers more."""
    return [place % 8 < 2 + skill for place in range(40)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("report")
    runs = {
        f"{arm}.{seed}": ArmRun(setting="core", arm=arm, seed=seed, phases=(f"{arm}-{seed}",))
        for arm in ARMS
        for seed in SEEDS
    }
    students = {
        phase: _student(root / phase, tiny_folder, tokens=600, seconds=30.0, record_s=1.0)
        for run in runs.values()
        for phase in run.phases
    }
    scores = {
        name: _scores(root / f"scores-{name}", _right(4 * (run.arm == "reasons") + run.seed))
        for name, run in runs.items()
    }
    rows = [toys.answer_row(n, f"ask {n}", "<i>so</i>") for n in range(3)]
    config = ArmsConfig(
        title="toy",
        runs=runs,
        comparisons=(ArmPair(first="plain", second="reasons"),),
        arm_titles={"plain": "bare answers", "reasons": "with reasons"},
        caveats=("Nothing was trained.",),
    )
    made = arms_page.run(
        root,
        config,
        scores=scores,
        students=students,
        answers={"one": toys.artifact_of(root, rows)},
    )
    return made.path


def _rows(report: Path) -> list[dict[str, Any]]:
    return json.loads((report / RESULTS).read_text())


def test_results_tell_what_guessing_gives(report: Path):
    chance = {row["family"]: row["chance"] for row in _rows(report)}
    assert chance == {"all": pytest.approx(0.3), "coin": 0.5, "lift": pytest.approx(0.1)}
    assert len(_rows(report)) == len(ARMS) * 3 * (len(SEEDS) + 1)
    for row in _rows(report):
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert (row["tokens"], row["seconds"]) == (600, 30.0)


def test_the_page_says_what_came_out(report: Path):
    page = (report / PAGE).read_text()
    for text in ("bare answers", "with reasons", "Nothing was trained.", "guessing",
                 "not above guessing in", "paired t-test over seeds"):  # fmt: skip
        assert text in page, text
    assert "&lt;b&gt;" in page and "<b>3" not in page and "<script" not in page
    assert (report / "accuracy-core.svg").read_text().startswith("<svg")


def test_the_terminals_table_has_a_line_for_guessing(report: Path):
    stream = io.StringIO()
    Console(file=stream, width=120).print(arms_table(report / RESULTS))
    plain, reasons, guessing = [
        line for line in stream.getvalue().splitlines() if line.startswith("core ")
    ]
    assert plain.startswith("core plain") and reasons.startswith("core reasons")
    assert guessing.split() == ["core", "guessing", "30.0", "coin", "50", "lift", "10"]
    assert "600" in reasons and " to " in reasons


def test_seconds_are_those_of_the_whole_training(tmp_path: Path, tiny_folder: Path):
    """A resumed stage's record tells its last part only; tokens and seconds add over stages."""
    phases = {
        name: _student(tmp_path / name, tiny_folder, tokens=400, seconds=seconds, record_s=0.5)
        for name, seconds in (("a", 10.0), ("b", 30.0))
    }
    scores = _scores(tmp_path / "scores", [True] * 4)
    runs = {
        f"at-{share}": ArmRun(setting="core", arm="x", seed=0, phases=("a", "b"), share=share)
        for share in (0.5, 1.0)
    }
    early, whole = read_measured(runs, dict.fromkeys(runs, scores), phases)["core"]
    assert (whole.tokens, whole.seconds) == (800, 40.0)
    assert (early.tokens, early.seconds) == (400, 20.0)
