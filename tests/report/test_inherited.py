"""Wrong answers that are the teacher's own, against chance and the base."""

from pathlib import Path

import pytest

from spyhop.report.items import inherited_section
from spyhop.schema import Score
from spyhop.store import Artifact
from toys import rows_artifact


def _scores(folder: Path, answers: str) -> Artifact:
    """One answer a letter; A is right, and - is none."""
    rows = [
        Score(id=str(n), suite="s", task=f"t{n // 6}", response=letter, correct=letter == "A",
              extracted=None if letter == "-" else letter, target="A", chance=0.25,
              finish_reason="stop", response_tokens=1)
        for n, letter in enumerate(answers)
    ]  # fmt: skip
    return rows_artifact(folder, rows)


def test_shared_errors_are_counted_where_both_are_wrong(tmp_path: Path):
    answers = {
        "base": "CCBDDB" "CDBA",
        "student": "BCBDAb" "CCBB",
        "teacher": "BBBCCB" "CCA-",
    }  # fmt: skip
    scores = {name: _scores(tmp_path / name, text) for name, text in answers.items()}
    (made,) = inherited_section(scores)
    cells = {row["model"]: row for row in _rows(made)}
    # Both are wrong on items 0, 1, 2, 3, 5 and 6, 7: B=B, C-B, B=B, D-C, b=B; C=C, C=C.
    assert cells["student"]["wrong, as the teacher is"] == "7"
    assert cells["student"]["same answer %"] == "71.4"
    # By task: three of the student's five answers are B, and four of the teacher's; one C each.
    chance = (3 * 4 / 5 + 1 * 1 / 5 + 2 * 2 / 2) / 7
    assert float(cells["student"]["chance %"]) == pytest.approx(100 * chance, abs=0.05)
    # On these seven items the base agrees with the teacher on items 2, 5 and 6.
    assert cells["student"]["minus base, points"].startswith("28.")
    assert "minus base, points" not in cells["base"] or not cells["base"]["minus base, points"]


def test_without_a_teacher_there_is_no_section(tmp_path: Path):
    scores = {"base": _scores(tmp_path / "a", "BB"), "student": _scores(tmp_path / "b", "BB")}
    assert inherited_section(scores) == []


def _rows(made: object) -> list[dict[str, str]]:
    import re

    (table,) = re.findall(r"<table.*?</table>", "".join(made.blocks), re.DOTALL)  # type: ignore[attr-defined]
    lines = [
        [
            re.sub(r"<[^>]+>", "", cell).strip()
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)
        ]
        for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    ]
    return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]
