"""Data sets compared by what they gain as they grow, end to end with a tiny base."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import toys
from command import Command
from spyhop.augment import FilterAnswersConfig, filter_answers
from spyhop.recipes.scale import ScaleConfig, scale
from spyhop.schema import Answer, InputError

POINTS = (
    "points=[{num_rows = 4, batch_rows = 2, steps = 2}, {num_rows = 8, batch_rows = 2, steps = 4}]"
)


def write(path: Path, said: str, num: int = 10) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {n}."},
                {"role": "assistant", "content": said},
            ]
        }
        for n in range(num)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.slow
def test_the_set_that_teaches_the_held_out_answers_gains_more(
    tmp_path: Path, tiny_folder: Path, cli: Command
):
    right, wrong = write(tmp_path / "right.jsonl", "aaaa"), write(tmp_path / "wrong.jsonl", "zzzz")
    held_out = write(tmp_path / "held.jsonl", "aaaa", 3)
    out = tmp_path / "out"
    options = ["--held-out", held_out, "--seeds", "2", "--out", out, "--base", tiny_folder]
    fast = [
        "--set",
        POINTS,
        "--set",
        "train.optimizer.learning_rate=0.01",
    ]
    told = cli("scale", right, wrong, *options, *fast)
    assert told.code == 0, told.stderr
    page = out / "runs/scale/report"
    rows = json.loads((page / "results.json").read_text())
    students = [row for row in rows if row.get("table") == "scaling"]
    assert len(students) == 8
    mean = {
        kind: sum(row["held_out"]["value"] for row in students if row["kind"] == kind) / 4
        for kind in ("right", "wrong")
    }
    assert mean["right"] > mean["wrong"]
    (test,) = [row for row in rows if row.get("table") == "equal slopes"]
    assert 0 <= test["p_value"] <= 1
    assert "right" in (page / "report.html").read_text()
    again = cli("scale", right, right, *options)
    assert again.code == 2 and "two data sets are called 'right'" in again.stderr


def test_what_it_needs_is_said(tmp_path: Path):
    given = {"sets": {"a": tmp_path}, "base": tmp_path}
    with pytest.raises(ValidationError, match="nothing to measure by"):
        ScaleConfig(**given)
    with pytest.raises(ValidationError, match="two sizes"):
        ScaleConfig(**given, held_out=tmp_path, points=({"num_rows": 4, "steps": 2},))
    with pytest.raises(ValidationError, match="one suite"):
        ScaleConfig(**given, held_out=tmp_path, judge=tmp_path)


def test_a_judge_compares_every_student_with_the_base(tmp_path: Path, tiny_folder: Path):
    config = ScaleConfig(
        sets={"a": write(tmp_path / "a.jsonl", "x")},
        base=tiny_folder,
        suites=({"suite": "questions", "path": tmp_path},),
        judge=tiny_folder,
        seeds=(0,),
    )
    names = [step.name for step in scale(config).steps]
    assert sum(name.startswith("verdicts-a-") for name in names) == len(config.points)
    assert "scores-base" in names


def test_an_exact_number_of_rows_is_nested_and_a_shortage_is_an_error(tmp_path: Path):
    rows = [toys.answer_row(n, f"q{n}", None if n == 3 else f"a{n}") for n in range(10)]
    answers = toys.artifact_of(tmp_path, rows)

    def kept(num: int, seed: int = 0) -> set[str]:
        config = FilterAnswersConfig(num_rows=num, seed=seed)
        made = filter_answers.run(tmp_path, config, answers=answers)
        return {row.id for row in made.rows(Answer)}

    assert len(kept(4)) == 4 and kept(4) < kept(7) and kept(4) != kept(4, seed=1)
    assert rows[3].id not in kept(9)
    with pytest.raises(InputError, match="9 whole rows, fewer than num_rows = 10"):
        kept(10)
