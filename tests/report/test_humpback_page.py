from pathlib import Path

import pytest

import pairing
import toys
from spyhop.collect import SeedsConfig, read_seeds
from spyhop.evaluate.likelihood import HeldOutLogLikelihood
from spyhop.report.humpback import _data_section, _pairs_section, of_score, pair_set
from spyhop.report.students import (
    StudentRun,
    StudentScores,
    fits,
    paired_table,
    quality_section,
    results_of,
    scaling_section,
    seen_by,
)
from spyhop.schema import Pair
from spyhop.store import Artifact, Source


def test_the_public_seeds_are_as_long_as_the_papers(data_dir: Path, tmp_path: Path):
    """186 first turns of the validation file against 3,200 of the paper, within two errors."""
    folder = Source(data_dir / "oasst1_en_validation").open(tmp_path)
    made = read_seeds.run(
        tmp_path, SeedsConfig(kind="oasst", pattern="en-validation.jsonl"), folder=folder
    )
    found = pair_set("seeds", made.rows(Pair))
    assert found.num_pairs == 186
    for ours, mean, sd in ((found.instructions, 148, 322), (found.responses, 1072, 818)):
        assert abs(ours[0] - mean) < 2 * sd / 186**0.5


def test_lengths_are_means_with_sample_deviations():
    found = pair_set("x", [pairing.pair(1, instruction="ab"), pairing.pair(2, instruction="abcd")])
    assert found.instructions == (3, pytest.approx(2**0.5))
    html = "".join(_data_section([found, pair_set("none", [])]).blocks)
    assert "<td>3 ± 1</td>" in html.replace(' class="num"', "") and "nan" not in html


def test_a_missing_score_is_in_no_grade(tmp_path: Path):
    rows = [pairing.rated(n, score) for n, score in enumerate((None, 3.9, 4.0, 4.6))]
    made = pairing.artifact(tmp_path / "r", rows)
    assert [row.rating.score for row in of_score(made, 4.0)] == [4.0, 4.6]
    assert [row.rating.score for row in of_score(made, 4.5)] == [4.6]


def _seen(folder: Path, runs: list[StudentRun], levels: list[float]) -> list[StudentScores]:
    scores: list[Artifact] = []
    for place, level in enumerate(levels):
        rows = [
            HeldOutLogLikelihood(id=str(n), value=level + n / 10, num_tokens=2) for n in range(6)
        ]
        scores.append(toys.rows_artifact(folder / str(place), rows))
    names = [f"student-{place}" for place in range(len(runs))]
    by_name = dict(zip(names, runs, strict=True))
    return list(seen_by(by_name, {"held_out": dict(zip(names, scores, strict=True))}).values())


def test_scaling_coefficients_are_those_of_each_set(tmp_path: Path):
    runs = [
        StudentRun(table="scaling", kind=kind, num_rows=num)
        for kind in ("good", "flat", "short")
        for num in ((10, 20, 40) if kind != "short" else (10, 20))
    ]
    seen = _seen(tmp_path, runs, [-3, -2, -1, -5, -5, -5, -4, -4])
    found = fits(seen, "held_out")
    assert found["good"].alpha.value == pytest.approx(1 / 0.6931, rel=1e-3)
    assert found["flat"] is None and found["short"] is None
    html = "".join(scaling_section(seen).blocks)
    assert "+1.443" in html and "too few points" in html and "better" in html


def test_curated_students_are_paired_with_uncurated_ones_of_their_size(tmp_path: Path):
    runs = [
        StudentRun(table="quality", kind=kind, student=size, num_rows=5)
        for size in ("main", "wide")
        for kind in ("no curation", "A5")
    ]
    html = "".join(quality_section(_seen(tmp_path, runs, [-4, -3, -2, -2.5])).blocks)
    assert "+1.000 [+1.000, +1.000]" in html and "-0.500 [-0.500, -0.500]" in html
    assert html.count("A5 against no curation") == 2


def test_a_grade_with_too_few_pairs_is_told_and_not_compared(tmp_path: Path):
    runs = [
        StudentRun(table="quality", kind=kind, student="main", num_rows=num)
        for num in (2, 3)
        for kind in ("no curation", "A5")
    ]
    seen = _seen(tmp_path, runs, [-4, -3, -2, -2.5])
    graded = {
        f"s{n}": pairing.artifact(tmp_path / f"g{n}", [pairing.pair(place) for place in range(num)])
        for n, num in enumerate((2, 2, 3, 2))
    }
    by_name = dict(zip(graded, runs, strict=True))
    scores = {name: each.scores["held_out"] for name, each in zip(graded, seen, strict=True)}
    counted = list(seen_by(by_name, {"held_out": scores}, graded).values())
    assert [each.num_rows for each in counted] == [2, 2, 3, 2]
    html = "".join(quality_section(counted).blocks)
    assert html.count("2 (all there are; the point is 3)") == 1
    assert html.count("A5 against no curation") == 1
    assert [line["num_rows"] for line in results_of(counted)] == [2, 2, 3, 2]


def test_halves_are_shown_with_the_score_above(tmp_path: Path):
    rows = [pairing.rated(n, score) for n, score in enumerate((4.5, 2.5))]
    html = "".join(_pairs_section(pairing.artifact(tmp_path / "r", rows)).blocks)
    assert "score 5, pair" in html and "score 3, pair" in html and "score 4" not in html


def test_differences_are_from_the_first_student(tmp_path: Path):
    runs = [StudentRun(table="sources", kind=kind) for kind in ("seeds", "both")]
    table = paired_table(_seen(tmp_path, runs, [-2, -1]))
    assert table.rows[1][2:] == ["+1.000 [+1.000, +1.000]", "better"]
