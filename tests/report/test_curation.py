"""The report of curation, from ratings and students that nobody trained."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import toys
from report.test_arms import _right, _scores, _student
from spyhop.report import ArmPair, ArmRun, ArmsConfig, CuratedSet, arms_page
from spyhop.report.arms import CURATION, comparison_lines
from spyhop.report.curation import COUNTS, over_seeds, read_curated
from spyhop.report.html import PAGE
from spyhop.schema import Pair, Rating, Segment
from spyhop.store import Artifact
from spyhop.world import ProblemsConfig, draw_pairs

ARMS = ("uncurated", "random", "curated")
SKILL = {"uncurated": 1, "random": 5, "curated": 5}


def _document(place: int, kind: str, text: str) -> Segment:
    return Segment(
        id=f"d{place}", url="", headings=[], text=text, start=0, end=len(text), language="en",
        page_digest="", origin=f"spyhop.world/{kind}",
    )  # fmt: skip


def _rated(place: int, instruction: str, text: str, score: float) -> Pair:
    rating = Rating(score=score, method="likelihood", judge="M0", value=-0.5)
    return Pair(
        id=f"p{place}", instruction=instruction, response=text, tag="web", collection="web",
        segment_id=f"d{place}", rating=rating,
    )  # fmt: skip


def _set(root: Path, kept: Sequence[int]) -> tuple[Artifact, Artifact, Artifact]:
    """Four correct documents, two flawed ones and two menus; the last got no instruction."""
    solved = list(draw_pairs.run(root, ProblemsConfig(num_rows=6)).rows(Pair))
    kinds = ["correct"] * 4 + ["misconceived"] * 2
    documents = [
        _document(place, kind, row.response)
        for place, (kind, row) in enumerate(zip(kinds, solved, strict=True))
    ]
    documents += [_document(n, "boilerplate", f"Home | Search {n}") for n in (6, 7)]
    asked = [row.instruction for row in solved]
    asked[1] = "<b>Nothing</b> that it answers"
    rated = [
        _rated(n, [*asked, "Home?"][n], documents[n].text, 5.0 if n in kept else 2.0)
        for n in range(7)
    ]
    return tuple(
        toys.rows_artifact(root / name, rows)
        for name, rows in (
            ("documents", documents),
            ("rated", rated),
            ("kept", [row for row in rated if int(row.id[1:]) in kept]),
        )
    )


def test_kinds_are_followed_from_document_to_training_row(tmp_path: Path):
    where = CuratedSet(setting="core", seed=0, round=1)
    found = read_curated(where, *_set(tmp_path, kept=[0, 1, 4]))
    counts = {kind: tuple(found.kinds[kind, name] for name in COUNTS) for kind, _ in found.kinds}
    assert counts == {
        "correct": (4, 4, 3, 2), "misconceived": (2, 2, 2, 1), "boilerplate": (2, 1, 0, 0)
    }  # fmt: skip
    shares = {"precision": 2 / 3, "recall": 0.5, "base_rate": 4 / 7}
    assert found.shares() == pytest.approx(shares)
    assert [found.kinds["correct", score] for score in (5, 2, 3)] == [2, 2, 0]
    shown = [(kind, is_kept, pair.id) for kind, is_kept, pair in found.samples]
    assert shown == [
        ("boilerplate", False, "p6"),
        ("correct", True, "p0"),
        ("correct", False, "p2"),
        ("misconceived", True, "p4"),
        ("misconceived", False, "p5"),
    ]


def test_a_selection_of_flawed_documents_has_no_precision(tmp_path: Path):
    where = CuratedSet(setting="core", seed=0, round=1)
    found = read_curated(where, *_set(tmp_path, kept=[4]))
    assert (found.shares()["precision"], found.shares()["recall"]) == (0.0, 0.0)


def test_an_interval_over_seeds_stays_a_share():
    found = over_seeds([0.99, 0.7, 0.95])
    assert found.low < 0.7 and found.high == 1.0
    assert over_seeds([0.4]).low == over_seeds([0.4]).high == 0.4


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Two seeds in which curated and random arms are right on the same items."""
    root = tmp_path_factory.mktemp("curation")
    runs = {
        f"{arm}.{seed}": ArmRun(setting="core", arm=arm, seed=seed, phases=(f"{arm}-{seed}",))
        for arm in ARMS
        for seed in (0, 1)
    }
    scores = {
        name: _scores(root / f"scores-{name}", _right(SKILL[run.arm] + run.seed))
        for name, run in runs.items()
    }
    students = {
        phase: _student(root / phase, tiny_folder, tokens=600, seconds=30.0, record_s=1.0)
        for run in runs.values()
        for phase in run.phases
    }
    curated = {f"kept-{n}": CuratedSet(setting="core", seed=n, round=1) for n in (0, 1)}
    sets = {f"kept-{n}": _set(root / f"set{n}", kept=[0, 1, 4][: 2 + n]) for n in (0, 1)}
    documents, rated, kept = (
        {name: each[place] for name, each in sets.items()} for place in range(3)
    )
    rows = [toys.answer_row(n, f"ask {n}", "so") for n in range(3)]
    config = ArmsConfig(
        title="toy",
        runs=runs,
        curated=curated,
        comparisons=(
            ArmPair(first="uncurated", second="curated"),
            ArmPair(first="curated", second="uncurated"),
            ArmPair(first="random", second="curated"),
        ),
        arm_titles={"uncurated": "all", "random": "drawn", "curated": "best"},
        caveats=("Nothing was trained.",),
    )
    answers = {"teacher": toys.artifact_of(root, rows)}
    return arms_page.run(
        root,
        config,
        scores=scores,
        students=students,
        answers=answers,
        documents=documents,
        rated=rated,
        kept=kept,
    ).path


def test_sentences_follow_from_what_was_measured(report: Path):
    page = (report / PAGE).read_text().replace("&#34;", '"')
    assert '"best" is better than "all" by +50.0 [' in page
    assert '"all" is worse than "best" by -50.0 [' in page
    assert 'No difference shown between "best" and "drawn": +0.0 [' in page
    assert "(seed by seed: +50.0, +50.0)" in page
    assert "Of the documents kept in round 1, 83.3 % are correct" in page
    assert "Nothing was trained." in page


def test_the_page_shows_documents_and_escapes_them(report: Path):
    page = (report / PAGE).read_text()
    assert "correct; rating 5 (-0.500 a token); kept" in page
    assert "misconceived; rating 2 (-0.500 a token); not kept" in page
    assert "<script" not in page and "<b>Nothing" not in page


def test_figures_are_written_for_programs(report: Path):
    first, second = json.loads((report / CURATION).read_text())
    assert (first["seed"], first["round"], first["precision"]) == (0, 1, 1.0)
    assert second["kinds"]["boilerplate"] == {
        "documents": 2,
        "written": 1,
        "recovered": 0,
        "kept": 0,
        "scores": {"1": 0, "2": 1, "3": 0, "4": 0, "5": 0},
    }


def test_the_terminal_tells_each_comparison_once(report: Path):
    told = comparison_lines(report / "comparisons.json")
    assert len(told) == 3
    assert told[0].startswith("core: curated against uncurated: +50.0 [")
    assert [line.rsplit("(")[-1] for line in told] == ["better)", "worse)", "no difference shown)"]
