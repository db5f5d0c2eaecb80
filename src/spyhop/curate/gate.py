"""Whether ratings are reliable (G9): parsed, spread, repeatable, and better than no ratings.

The public replication of Humpback trained on ratings of which 45 to 67 % could not be parsed, and
its model got worse; the gate fails on such ratings. Human labels of pairs, where there are some,
show whether selecting by score is better than chance.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, TypeAlias

from pydantic import Field

from spyhop.collect import pair_id
from spyhop.curate.keep import KeepConfig
from spyhop.curate.rate import count_rating, read_ratings
from spyhop.schema import Config, Finding, InputError, Label, Pair
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.statistics import Interval, quadratic_kappa, wilson
from spyhop.store import Artifact
from spyhop.store.files import field
from spyhop.store.rows import read_rows, row_files

LOWER = "gate.min_repeated (0 needs no second ratings)"
MAX_ONE_SCORE = 0.9
"""Maximum share of scored pairs with the same (rounded) score."""
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""Accepted spellings of `good`."""
ScorePairs: TypeAlias = Sequence[tuple[float, float]]
"""Two scores of each pair that has both."""


class GateConfig(Config):
    """Limits of the checks."""

    min_parse_rate: float = Field(0.95, ge=0, le=1)
    """Minimum share of pairs with a score."""
    min_kappa: float = Field(0.4, ge=-1, le=1)
    """Minimum agreement of the judge with itself: quadratic kappa of first and second scores, and
    of written and expected scores."""
    min_repeated: int = Field(200, ge=0)
    """Minimum number of pairs rated twice; 0 needs no second ratings."""
    good_score: float | None = Field(None, ge=1, le=5)
    """Score from which a pair counts as selected when compared with labels. Default in recipes:
    `keep.min_score`, or 4 if pairs are kept by quota alone."""
    min_label_kappa: float = Field(0.4, ge=-1, le=1)
    """Minimum agreement of the judge with people: quadratic kappa of their scores."""

    @property
    def selected_from(self) -> float:
        """Score from which a pair counts as selected."""
        return 4.0 if self.good_score is None else self.good_score


@stage(version=3, writes=Finding, plan=lambda config, rated, labels=None: Estimate(rows=7))
def gate(
    ctx: Context, config: GateConfig, *, rated: Artifact, labels: Artifact | None = None
) -> Iterator[Finding]:
    """Yield the findings: `parse_rate`, `one_score`, `repeatability`, `agreement`, and labels'.

    `agreement` compares the score that the judge wrote with the one expected from its
    log-probabilities: a judge whose probabilities contradict its text repeats itself perfectly.

    With labels, findings are `precision` of the selected pairs, which must be above the share of
    good pairs among all labelled ones (untested if all are good), `recall`, and `label_kappa` if
    labels have scores. A failed check raises nothing here; `keep` raises.

    Counts: `score/1` to `score/5`, `missing/<reason>`, `labels/used`, `labels/foreign`.
    """
    people = {label.id: label for label in labels.rows(Label)} if labels else {}
    judged, repeated, written = [], [], []
    num_repeated, methods = 0, set[str]()
    for name, rating in ctx.track(read_ratings(rated), "reading ratings", total=rated.num_rows):
        if rating is None:
            raise InputError(f"{rated}: pair {name} is not rated; rate the pairs first")
        count_rating(ctx, rating)
        methods.add(rating.method)
        num_repeated += rating.is_repeated
        if rating.score is not None and rating.second_score is not None:
            repeated.append((rating.score, rating.second_score))
        if rating.score is not None and rating.written is not None:
            written.append((rating.written, rating.score))
        if label := people.pop(name, None):
            judged.append((label, rating.score))
    if labels is not None:
        ctx.count("labels/used", len(judged))
        ctx.count("labels/foreign", len(people))
        if not judged:
            raise InputError(f"{labels}: no label belongs to a rated pair")
    yield from score_findings(ctx.counts, config)
    if methods == {"likelihood"} or not config.min_repeated:
        why = "a likelihood does not vary" if config.min_repeated else "second ratings are off"
        yield _finding("repeatability", None, None, 0, True, why)
    else:
        yield _repeatability(repeated, num_repeated, config)
    yield _agreement(written, config)
    if judged:
        if all(label.is_good for label, _ in judged):
            ctx.notice(f"{labels}: all labels are good, so they do not test precision")
        yield from label_findings(judged, config)


def score_findings(counts: Mapping[str, int], config: GateConfig) -> Iterator[Finding]:
    """Yield `parse_rate` and `one_score` from the counts of the gate."""
    scores = Counter({name: n for name, n in counts.items() if name.startswith("score/")})
    missing = Counter({name: n for name, n in counts.items() if name.startswith("missing/")})
    num_scored, num_rows = scores.total(), scores.total() + missing.total()
    if not num_rows:
        raise InputError("no pair is rated")
    rate, limit = wilson(num_scored, num_rows), config.min_parse_rate
    reasons = ", ".join(f"{k.removeprefix('missing/')}: {n:,}" for k, n in missing.most_common())
    text = (
        f"{rate.value:.1%} of {num_rows:,} pairs have a score, the limit is {limit:.0%} "
        f"(missing: {reasons or '0'})"
    )
    yield _finding("parse_rate", rate, limit, num_rows, rate.value >= limit, text)
    text, share = "no pair has a score", None
    for name, num in scores.most_common(1) if num_scored else ():
        share = wilson(num, num_scored)
        score = name.removeprefix("score/")
        text = f"{share.value:.1%} of the scores are {score}, the limit is {MAX_ONE_SCORE:.0%}"
    is_passed = share is not None and share.value <= MAX_ONE_SCORE
    yield _finding("one_score", share, MAX_ONE_SCORE, num_scored, is_passed, text)


def label_findings(
    rows: Sequence[tuple[Label, float | None]], config: GateConfig
) -> Iterator[Finding]:
    """Yield precision and recall of the selected pairs, and the agreement with labelled scores.

    Source: Humpback (arXiv:2308.06259), Table 7 (v1): 250 pairs labelled by an author.
    """
    selected = [label for label, score in rows if (score or 0) >= config.selected_from]
    num_good, num_selected = sum(label.is_good for label, _ in rows), len(selected)
    num_both = sum(label.is_good for label in selected)
    share = num_good / len(rows)
    precision = wilson(num_both, num_selected) if num_selected else None
    is_better = precision is not None and precision.low > share
    text = (
        f"of {num_selected} labelled pairs with a score of {config.selected_from:g} or higher, "
        f"{_percent(precision)} are good; of all {len(rows)} labelled pairs {share:.0%}"
    )
    if not is_better:
        text += ": selecting by score is not shown to be better than chance"
    if share == 1:
        is_better, precision = True, None
        text = f"all {len(rows)} labelled pairs are good, so precision is untested; label bad ones"
    limit = share if precision else None
    yield _finding("precision", precision, limit, num_selected, is_better, text)
    recall = wilson(num_both, num_good) if num_good else None
    text = f"of {num_good} good pairs {_percent(recall)} have such a score"
    yield _finding("recall", recall, None, num_good, True, text)
    both = [(label.score, score) for label, score in rows if label.score and score is not None]
    if len(both) > 1:
        kappa, shown = _kappa(both)
        limit = config.min_label_kappa
        text = (
            f"quadratic kappa with {len(both)} labelled scores is {shown}, the limit is {limit:g} "
            "(gate.min_label_kappa)"
        )
        is_passed = kappa is None or kappa.value >= limit
        yield _finding("label_kappa", kappa, limit, len(both), is_passed, text)


def _repeatability(pairs: ScorePairs, num_repeated: int, config: GateConfig) -> Finding:
    """Compare first and second scores; of `num_repeated` pairs, some may lack one of the two."""
    num = len(pairs)
    kappa, shown = _kappa(pairs)
    is_enough = num >= config.min_repeated
    is_passed = is_enough and kappa is not None and kappa.value >= config.min_kappa
    text = (
        f"quadratic kappa of {num:,} pairs rated twice is {shown}, the limit is "
        f"{config.min_kappa:g} on {config.min_repeated:,}"
    )
    if num_repeated > num:
        text += f" ({num_repeated - num:,} more lack one of the two scores)"
    if not is_enough:
        text += f"; rate more pairs twice (num_repeated of the rating), or lower {LOWER}"
    return _finding("repeatability", kappa, config.min_kappa, num, is_passed, text)


def _agreement(pairs: ScorePairs, config: GateConfig) -> Finding:
    """Compare written and expected scores."""
    num = len(pairs)
    kappa, shown = _kappa(pairs)
    if kappa is None:
        why = "written and expected scores are all the same" if num > 1 else "not applicable"
        return _finding("agreement", None, None, num, True, f"{why} ({num:,} written scores)")
    text = (
        f"quadratic kappa of {num:,} written and expected scores is {shown}, the limit is "
        f"{config.min_kappa:g}"
    )
    is_passed = kappa.value >= config.min_kappa
    if not is_passed:
        text += ': the judge\'s log-probabilities contradict its text; use rate.method = "verdict"'
    return _finding("agreement", kappa, config.min_kappa, num, is_passed, text)


def _kappa(pairs: ScorePairs) -> tuple[Interval | None, str]:
    """Return the quadratic kappa of pairs of scores, if it has a value, and how it is shown."""
    if len(pairs) < 2:
        return None, "not known"
    try:
        found = quadratic_kappa(*zip(*pairs, strict=True))
    except ValueError:
        return None, "undefined, for all scores are the same"
    return found, f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _finding(
    name: str, found: Interval | None, limit: float | None, num: int, passed: bool, text: str
) -> Finding:
    bounds = asdict(found) if found else {"value": None}
    return Finding(id=name, **bounds, limit=limit, num_rows=num, is_passed=passed, text=text)


def _percent(found: Interval | None) -> str:
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]" if found else "none"


def with_threshold(gate: GateConfig, keep: KeepConfig) -> GateConfig:
    """Return the gate with the threshold of `keep`, unless it has its own."""
    own = keep.min_score if gate.good_score is None else gate.good_score
    return gate.model_copy(update={"good_score": own})


def needs_repeats(gate: GateConfig, keep: KeepConfig) -> bool:
    """Whether nothing can be kept unless a judge rates some pairs twice."""
    return keep.uses_scores and keep.gate == "refuse" and gate.min_repeated > 0


def check_repeats(gate: GateConfig, keep: KeepConfig, num_repeated: int, setting: str) -> None:
    """Reject settings with which a judge's ratings cannot pass the gate."""
    if needs_repeats(gate, keep) and num_repeated < gate.min_repeated:
        raise ValueError(
            f"{setting} = {num_repeated} is below gate.min_repeated = {gate.min_repeated}, so "
            f"ratings cannot pass; raise it, or lower {LOWER}"
        )


@stage(version=1, writes=Finding, plan=lambda config, pairs: Estimate(rows=1))
def check_pair_count(ctx: Context, config: GateConfig, *, pairs: Artifact) -> Iterator[Finding]:
    """Yield the finding `num_pairs`: at least as many pairs as the gate needs rated twice."""
    if pairs.num_rows < config.min_repeated:
        raise InputError(
            f"{pairs}: {pairs.num_rows:,} pairs, but the gate needs {config.min_repeated:,} that "
            f'are rated twice; add pairs, lower {LOWER}, or set keep.gate = "report"'
        )
    num, limit = pairs.num_rows, config.min_repeated
    text = f"{num:,} pairs, {limit:,} required"
    yield Finding(id="num_pairs", value=num, limit=limit, num_rows=num, is_passed=True, text=text)


class LabelsConfig(Config):
    """Files of human labels."""

    good_score: float = Field(4.0, ge=1, le=5)
    """Score from which a pair is good, for rows without `good`."""


@stage(version=2, writes=Label, plan=lambda config, folder, pairs=None: sum_estimates([folder]))
def read_labels(
    ctx: Context, config: LabelsConfig, *, folder: Artifact, pairs: Artifact | None = None
) -> Iterator[Label]:
    """Read labels: rows with `good` (true or false) or `score` (1 to 5), and the pair's identity.

    The pair is given by `id`, or by `instruction` and `response`. With `pairs`, labels of other
    pairs are counted as `foreign`. Labels of several people (`rater`) on a pair become one: that of
    the majority, with the mean of their scores; without a majority it is counted as `disputed`.
    """
    read = [
        (where, str(row.get("rater") or ""), _label(config, row, where))
        for path in row_files(folder.path)
        for where, row in read_rows(path)
    ]
    named, ids = {label.id for *_, label in read}, dict[str, str]()
    for row in pairs.rows(Pair) if pairs is not None else ():  # by their ids, or by their texts
        names = {row.id, pair_id(row.instruction, row.response)} & named
        ids |= dict.fromkeys(names, row.id)
    if pairs is not None and not ids:
        raise InputError(f"{folder}: no label (of {len(read):,}) belongs to a pair in {pairs}")
    by_pair: dict[str, dict[str, Label]] = defaultdict(dict)
    for where, rater, label in read:
        name, is_foreign = ids.get(label.id, label.id), pairs is not None and label.id not in ids
        if rater in by_pair[name] and not is_foreign:  # one question may have several responses
            raise InputError(f"{where}: pair {name} is labelled twice")
        by_pair[name][rater] = label
        ctx.count("foreign", int(is_foreign))
    for name, labels in by_pair.items():
        lead = sum(1 if label.is_good else -1 for label in labels.values())
        if not lead:
            ctx.count("disputed")
            continue
        ctx.count("good" if lead > 0 else "bad")
        scores = [label.score for label in labels.values() if label.score is not None]
        yield Label(id=name, is_good=lead > 0, score=fmean(scores) if scores else None)


def _label(config: LabelsConfig, row: dict[str, Any], where: str) -> Label:
    name = row.get("id")
    if name in (None, ""):
        name = pair_id(field(row, "instruction", where), field(row, "response", where))
    score, good = _score(row.get("score"), where), row.get("good")
    is_good = score is not None and score >= config.good_score
    if good not in (None, ""):
        if str(good).lower() not in WORDS:
            raise InputError(f"{where}: good = {good!r:.40}: write true or false")
        is_good = WORDS[str(good).lower()]
    elif score is None:
        raise InputError(f"{where}: a label needs good (true or false) or score (1 to 5)")
    return Label(id=str(name), is_good=is_good, score=score)


def _score(given: object, where: str) -> float | None:
    if given in (None, ""):
        return None
    try:
        score = float(str(given))
    except ValueError:
        score = 0.0
    if not 1 <= score <= 5:
        raise InputError(f"{where}: score = {given!r:.40}: write a number from 1 to 5")
    return score
