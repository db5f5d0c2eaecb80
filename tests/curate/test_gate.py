import random
from collections import Counter
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import toys
from pairing import artifact, pair, rated
from spyhop.curate import GateConfig, KeepConfig, KeepGood, gate, keep, with_threshold
from spyhop.curate.gate import label_findings, score_findings
from spyhop.schema import Finding, InputError, Label, Pair, TrainingError
from spyhop.store import Artifact

REPLICATION = {  # scores of 482,963 pairs by two rules; of the strict one only 5 is told
    "loose": (Counter({1: 13_083, 2: 9_288, 3: 102_756, 4: 119_211, 5: 21_301}), 217_203),
    "strict": (Counter({5: 16_460, 4: 144_179}), 322_324),
}


def _good_ratings(num: int, *, seed: int = 0, noise: int = 1) -> list[Pair]:
    source = random.Random(seed)
    rows = []
    for place in range(num):
        score = source.randint(1, 5)
        again = min(5, max(1, score + source.randint(-noise, noise)))
        rows.append(rated(place, score, is_repeated=True, second_score=again))
    return rows


def _found(root: Path, rows: list[Pair], labels: list[Label] | None = None, **changes: object):
    config = GateConfig.model_validate(changes)
    more = {"labels": toys.rows_artifact(root / "labels", labels)} if labels else {}
    made = gate.run(root, config, rated=artifact(root / "rated", rows), **more)
    return {finding.id: finding for finding in made.rows(Finding)}, made


@pytest.mark.parametrize("reading", REPLICATION)
def test_the_public_replication_is_refused(reading: str):
    scores, missing = REPLICATION[reading]
    counts = {f"score/{score}": num for score, num in scores.items()}
    counts["missing/no_verdict"] = missing
    found = {each.id: each for each in score_findings(counts, GateConfig())}
    parse_rate = found["parse_rate"]
    assert not parse_rate.is_passed
    assert parse_rate.value == pytest.approx({"loose": 0.55, "strict": 0.33}[reading], abs=0.005)
    assert f"no_verdict: {missing:,}" in parse_rate.text


def test_training_on_the_replications_ratings_is_refused_with_the_reason(tmp_path: Path):
    scores, missing = REPLICATION["loose"]
    given = [score for score, num in scores.items() for _ in range(num // 1000)]
    rows = [rated(place, score) for place, score in enumerate(given)]
    rows += [rated(len(given) + n, None) for n in range(missing // 1000)]
    ratings = artifact(tmp_path / "rated", rows)
    passed = gate.run(tmp_path, GateConfig(min_repeated=0), rated=ratings)
    with pytest.raises(TrainingError, match=r"parse_rate: 5\d\.\d% of .*no_verdict: 217.*report"):
        keep.run(tmp_path, KeepConfig(min_score=5), rated=ratings, gate=passed)
    config = KeepConfig(min_score=5, gate="report")
    made = keep.run(tmp_path, config, rated=ratings, gate=passed)
    assert made.num_rows == 21 and made.record.counts["gate/failed"] == 1


def test_good_ratings_pass(tmp_path: Path):
    rows = _good_ratings(240) + [rated(1000 + n, None) for n in range(5)]
    found, made = _found(tmp_path, rows)
    assert list(found) == ["parse_rate", "one_score", "repeatability", "agreement"]
    assert all(finding.is_passed for finding in found.values())
    kappa = found["repeatability"]
    assert kappa.num_rows == 240 and kappa.low and kappa.value and kappa.value > 0.7
    assert made.record.counts["missing/no_verdict"] == 5


def test_ratings_that_do_not_repeat_are_refused(tmp_path: Path):
    source = random.Random(3)
    rows = [
        rated(n, source.randint(1, 5), is_repeated=True, second_score=source.randint(1, 5))
        for n in range(250)
    ]
    found, _ = _found(tmp_path, rows)
    assert not found["repeatability"].is_passed and found["parse_rate"].is_passed
    value = found["repeatability"].value
    assert value is not None and abs(value) < 0.2


def test_too_few_second_ratings_are_refused_and_missing_ones_are_told(tmp_path: Path):
    rows = [*_good_ratings(199), rated(500, 3, is_repeated=True, second_score=None)]
    found, _ = _found(tmp_path, rows)
    assert not found["repeatability"].is_passed
    assert "of 199 pairs" in found["repeatability"].text and "1 more" in found["repeatability"].text
    found, _ = _found(tmp_path, rows, min_repeated=199)
    assert found["repeatability"].is_passed
    found, _ = _found(tmp_path, [rated(n, 1 + n % 5) for n in range(9)])
    assert not found["repeatability"].is_passed
    found, _ = _found(tmp_path, [rated(n, 1 + n % 5) for n in range(9)], min_repeated=0)
    assert found["repeatability"].is_passed


def test_one_score_for_nearly_all_is_refused(tmp_path: Path):
    rows = [
        rated(n, 4.2 if n < 95 else 2.0, is_repeated=True, second_score=4.0) for n in range(100)
    ]
    found, _ = _found(tmp_path, rows, min_repeated=1)
    assert not found["one_score"].is_passed
    assert found["one_score"].value == 0.95 and "are 4" in found["one_score"].text
    same, _ = _found(tmp_path, [rated(n, 3, is_repeated=True, second_score=3) for n in range(300)])
    assert not same["repeatability"].is_passed and same["repeatability"].value is None
    none, _ = _found(tmp_path, [rated(n, None) for n in range(3)])
    assert not none["one_score"].is_passed and not none["parse_rate"].is_passed


def test_likelihoods_need_no_second_ratings(tmp_path: Path):
    rows = [rated(n, 1 + n % 5, method="likelihood", value=-n) for n in range(20)]
    found, _ = _found(tmp_path, rows)
    assert all(finding.is_passed for finding in found.values())
    assert found["repeatability"].value is None


def _judged(
    num_good_chosen: int, num_chosen: int, num_good: int, num: int = 250
) -> list[tuple[Label, float]]:
    both = [(True, True)] * num_good_chosen + [(False, True)] * (num_chosen - num_good_chosen)
    rest = [(True, False)] * (num_good - num_good_chosen)
    rest += [(False, False)] * (num - len(both) - len(rest))
    labels = [(Label(id="x", is_good=good, score=None), chosen) for good, chosen in both + rest]
    return [(label, 5.0 if chosen else 1.0) for label, chosen in labels]


@pytest.mark.parametrize(
    ("rater", "counts", "precision", "recall", "is_passed"),
    [
        ("M_0", (4, 9, 50), 0.44, 0.09, False),  # 250 labels by one author, 20 % good
        ("M_1", (22, 42, 50), 0.52, 0.44, True),
        ("GPT-4", (46, 52, 50), 0.88, 0.92, True),
    ],
)
def test_the_papers_curators(rater, counts, precision, recall, is_passed):
    found = {each.id: each for each in label_findings(_judged(*counts), GateConfig())}
    assert found["precision"].value == pytest.approx(precision, abs=0.01)
    assert found["recall"].value == pytest.approx(recall, abs=0.015)
    assert found["precision"].is_passed is is_passed and found["recall"].is_passed
    assert found["precision"].limit == 0.2


@pytest.mark.parametrize(
    ("expected", "is_passed"),
    [
        (lambda written: written, True),
        (lambda written: 0.8 * written + 0.6, True),  # probabilities soften a verdict
        (lambda written: 6 - written, False),  # they say the opposite, every time
        (lambda written: 3.0, False),  # they say the same of all
        (lambda written: 1 + (written + 2) % 5, False),
    ],
)
def test_probabilities_that_contradict_the_written_verdict_are_refused(
    tmp_path: Path, expected, is_passed
):
    """Such a judge repeats itself perfectly, and the worst pairs would be kept."""
    rows = []
    for place in range(210):
        written = 1 + place % 5
        score = expected(written)
        more = {"is_repeated": True, "second_score": score, "method": "expected"}
        rows.append(rated(place, score, written=written, **more))
    found, _ = _found(tmp_path, rows)
    assert found["agreement"].is_passed is is_passed and found["agreement"].num_rows == 210
    assert is_passed or "log-probabilities contradict its text" in found["agreement"].text


def test_without_written_verdicts_agreement_does_not_apply(tmp_path: Path):
    found, _ = _found(tmp_path, _good_ratings(210))
    assert found["agreement"].is_passed and found["agreement"].value is None


def test_labels_that_are_all_good_test_no_precision(tmp_path: Path):
    rows = _good_ratings(210)
    found, _ = _found(tmp_path, rows, [Label(id=row.id, is_good=True) for row in rows])
    precision = found["precision"]
    assert (precision.value, precision.limit) == (None, None)
    assert precision.text.startswith("all 210 labelled pairs are good, so precision is untested")
    assert found["recall"].value is not None


def test_labels_are_matched_with_pairs(tmp_path: Path):
    rows = _good_ratings(210)
    labels = [
        Label(id=row.id, is_good=row.rating.score >= 4, score=row.rating.score)
        for row in rows[:100] if row.rating and row.rating.score
    ]  # fmt: skip
    found, made = _found(tmp_path, rows, [*labels, Label(id="elsewhere", is_good=True)])
    assert found["precision"].value == found["recall"].value == 1.0
    assert found["precision"].is_passed and found["label_kappa"].value == pytest.approx(1.0)
    assert (made.record.counts["labels/used"], made.record.counts["labels/foreign"]) == (100, 1)
    wrong = [Label(id=row.id, is_good=n % 2 == 0) for n, row in enumerate(rows)]
    found, _ = _found(tmp_path / "wrong", rows, wrong)
    assert not found["precision"].is_passed
    with pytest.raises(InputError, match="no label belongs to a rated pair"):
        _found(tmp_path / "none", rows, [Label(id="elsewhere", is_good=True)])


@pytest.mark.parametrize(("limit", "is_passed"), [(0.4, False), (-1.0, True)])
def test_a_judge_that_people_disagree_with_does_not_pass(tmp_path: Path, limit, is_passed):
    rows = _good_ratings(210)
    labels = [
        Label(id=row.id, is_good=row.rating.score >= 4, score=1 + place % 5)
        for place, row in enumerate(rows)
        if row.rating and row.rating.score
    ]
    found, _ = _found(tmp_path, rows, labels, min_label_kappa=limit)
    assert abs(found["label_kappa"].value or 1) < 0.2
    assert found["label_kappa"].is_passed is is_passed and found["label_kappa"].limit == limit
    assert "gate.min_label_kappa" in found["label_kappa"].text


def test_the_gate_measures_what_is_kept(tmp_path: Path):
    """Pairs of 4.2 are good and left out, those of 4.8 bad and kept: by 4 this would pass."""
    scores = [4.2] * 60 + [4.8] * 20 + [1.0] * 130
    rows = [rated(n, score, is_repeated=True, second_score=score) for n, score in enumerate(scores)]
    labels = [Label(id=row.id, is_good=n < 60) for n, row in enumerate(rows)]
    by_four = GateConfig().model_dump()
    assert _found(tmp_path / "a", rows, labels, **by_four)[0]["precision"].is_passed
    kept = with_threshold(GateConfig(), KeepConfig(min_score=4.5)).model_dump()
    found, _ = _found(tmp_path / "b", rows, labels, **kept)
    assert found["precision"].num_rows == 20 and not found["precision"].is_passed
    assert with_threshold(GateConfig(good_score=3), KeepConfig(min_score=4.5)).selected_from == 3
    assert with_threshold(GateConfig(), KeepConfig(num_rows=5)).selected_from == 4


def test_too_few_second_ratings_are_told_with_what_to_set(tmp_path: Path):
    found, _ = _found(tmp_path, _good_ratings(20))
    text = found["repeatability"].text
    assert "num_repeated of the rating" in text and "gate.min_repeated" in text
    found, _ = _found(tmp_path, _good_ratings(210, noise=4))
    assert "min_repeated" not in found["repeatability"].text


def test_unrated_pairs_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is not rated"):
        _found(tmp_path, [pair(1)])


def _gated(root: Path, rows: list[Pair]) -> tuple[Artifact, Artifact]:
    ratings = artifact(root / "rated", rows)
    return ratings, gate.run(root, GateConfig(min_repeated=0), rated=ratings)


def _kept(root: Path, rows: list[Pair], **changes: object) -> list[Pair]:
    ratings, passed = _gated(root, rows)
    config = KeepConfig.model_validate(changes)
    return list(keep.run(root, config, rated=ratings, gate=passed).rows(Pair))


MIXED = [rated(n, [4.5, 2.0, 5.0, 4.49, 4.0, 1.0][n % 6]) for n in range(60)]


def test_settings_beside_the_score_leave_it_as_it_is():
    """`keep.gate = "report"`, which a refusal names as its remedy, keeps no more than A5."""
    for given, score in [
        ({}, 4.5), ({"gate": "report"}, 4.5), ({"num_rows": 5}, None), ({"min_score": 4}, 4),
        (KeepConfig(), None),
    ]:  # fmt: skip
        assert TypeAdapter(KeepGood).validate_python(given).min_score == score


def test_thresholds_may_be_fractions_and_the_order_stays(tmp_path: Path):
    a4 = _kept(tmp_path, MIXED, min_score=4)
    a5 = _kept(tmp_path, MIXED, min_score=4.5)
    assert [row for row in MIXED if row in a5] == a5 and len(a4) == 40
    assert {row.rating.score for row in a5 if row.rating} == {4.5, 5.0} and len(a5) == 20


def test_missing_scores_are_never_kept_by_score(tmp_path: Path):
    rows = [*MIXED, rated(90, None), rated(91, None)]
    ratings, passed = _gated(tmp_path, rows)
    made = keep.run(tmp_path, KeepConfig(min_score=1), rated=ratings, gate=passed)
    assert made.num_rows == 60 and made.record.counts["left/missing"] == 2
    config = KeepConfig(num_rows=60)
    made = keep.run(tmp_path, config, rated=ratings, gate=passed)
    assert {row.id for row in made.rows(Pair)} == {row.id for row in MIXED}


def test_a_quota_is_exact_and_takes_the_best(tmp_path: Path):
    best = _kept(tmp_path, MIXED, num_rows=15)
    scores = sorted((row.rating.score for row in best if row.rating), reverse=True)
    assert scores == [5.0] * 10 + [4.5] * 5
    valued = [rated(n, 5.0, value=n / 10) for n in range(20)] + [
        rated(30 + n, 1.0) for n in range(5)
    ]
    kept = _kept(tmp_path / "v", valued, num_rows=3)
    assert [row.rating.value for row in kept if row.rating] == [1.7, 1.8, 1.9]
    with pytest.raises(InputError, match=r"20 of 60 pairs with a score of at least 4\.5"):
        _kept(tmp_path, MIXED, num_rows=21, min_score=4.5)
    assert len(_kept(tmp_path, MIXED, num_rows=21, min_score=4.5, fewer=True)) == 20
    low = [rated(n, 1 + n % 3) for n in range(9)]
    with pytest.raises(InputError, match="0 of 9 pairs with a score"):
        _kept(tmp_path / "low", low, num_rows=2, min_score=4.5, fewer=True)


def test_a_quota_within_candidates(tmp_path: Path):
    ratings, passed = _gated(tmp_path, MIXED)
    config = KeepConfig(num_rows=5, within=30)
    made = keep.run(tmp_path, config, rated=ratings, gate=passed)
    assert made.num_rows == 5 and made.record.counts["left/not_sampled"] == 30
    everything = keep.run(tmp_path, KeepConfig(within=30), rated=ratings, gate=passed)
    drawn = list(everything.rows(Pair))
    by_score = sorted((row.rating.score for row in drawn if row.rating), reverse=True)
    kept = [row.rating.score for row in made.rows(Pair) if row.rating]
    assert sorted(kept, reverse=True) == by_score[:5]
    with pytest.raises(InputError, match="60 pairs, fewer than within = 61"):
        keep.run(tmp_path, KeepConfig(within=61), rated=ratings, gate=passed)


def test_random_draws_are_nested_and_need_no_ratings(tmp_path: Path):
    rows = artifact(tmp_path / "plain", [pair(n) for n in range(40)])
    small, large = (
        list(keep.run(tmp_path, KeepConfig(num_rows=n, take="random"), rated=rows).rows(Pair))
        for n in (8, 16)
    )
    assert (len(small), len(large)) == (8, 16)
    assert {row.id for row in small} < {row.id for row in large}
    with pytest.raises(TrainingError, match="not checked by a gate"):
        keep.run(tmp_path, KeepConfig(num_rows=8), rated=rows)
    with pytest.raises(InputError, match="is not rated"):
        keep.run(tmp_path, KeepConfig(num_rows=8, gate="report"), rated=rows)


def test_random_draws_above_a_score(tmp_path: Path):
    kept = _kept(tmp_path, MIXED, min_score=4, num_rows=10, take="random")
    assert len(kept) == 10 and all(row.rating and row.rating.score >= 4 for row in kept)
    assert len({row.rating.score for row in kept if row.rating}) > 1


def test_the_gate_must_be_that_of_these_ratings(tmp_path: Path):
    _, passed = _gated(tmp_path / "a", MIXED)
    other = artifact(tmp_path / "other", MIXED[:30])
    with pytest.raises(InputError, match="checked other ratings"):
        keep.run(tmp_path, KeepConfig(min_score=4), rated=other, gate=passed)
