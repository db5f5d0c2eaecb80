"""Gains by quarters of nearness, from planted ones."""

import re
from pathlib import Path

import pytest

from spyhop.evaluate.contamination import ItemOverlap
from spyhop.report.items import QUARTERS, density_section
from spyhop.schema import Score
from spyhop.store import Artifact
from toys import rows_artifact

NUM = 80


def _scores(folder: Path, right: set[int]) -> Artifact:
    rows = [
        Score(id=str(n), suite="s", task="t", response="A", correct=n in right, extracted="A",
              target="A", chance=0.25, finish_reason="stop", response_tokens=1)
        for n in range(NUM)
    ]  # fmt: skip
    return rows_artifact(folder, rows)


def _seen(**fields: object) -> dict[str, ItemOverlap]:
    rows = [
        ItemOverlap(id=str(n), suite="s", task="t", density=n / NUM, is_checked=True, **fields)
        for n in range(NUM)
    ]
    return {row.id: row for row in rows}


def test_a_gain_near_training_is_seen_in_its_quarter(tmp_path: Path):
    near = {*range(60, 76)}  # 16 of the 20 nearest items
    scores = {"base": _scores(tmp_path / "b", set()), "student": _scores(tmp_path / "s", near)}
    (made,) = density_section(scores, _seen())
    _, similarity, student = (
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr.*?</tr>", "".join(made.blocks), re.DOTALL)
    )
    assert similarity[1:5] == ["0.1187", "0.3688", "0.6188", "0.8688"]
    values = [float(re.match(r"[+-][\d.]+", each)[0]) for each in student[1:]]
    assert values == pytest.approx([0, 0, 0, 80, 80])
    assert len(student) == len(QUARTERS) + 2


def test_items_that_training_contains_do_not_count(tmp_path: Path):
    scores = {name: _scores(tmp_path / name, set()) for name in ("base", "student")}
    assert density_section(scores, _seen(long_run="a run of words")) == []
    assert density_section({"base": scores["base"]}, _seen()) == []
