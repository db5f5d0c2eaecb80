"""What verdicts come to: one row for each judge, pair of models, part of the questions, measure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from operator import attrgetter
from statistics import fmean
from typing import Any, NamedTuple

from spyhop.schema import Response, Verdict
from spyhop.statistics import (
    Interval,
    bounded_mean,
    bradley_terry,
    grade_ratio,
    length_controlled,
    nominal_kappa,
    style_difference,
    win_rate,
)
from spyhop.text.asking import language_of
from spyhop.text.form import STYLE, style_of

ALL, UNDOUBTED, NO_RESPONSE = "all", "without doubted references", "no_response"
KAPPA, SLOPE = "agreement with people (kappa)", "log-odds per standard deviation"
PEOPLE = "people among themselves (kappa)"
POINTS = {"a": 0.0, "tie": 0.5, "b": 1.0}
"""Points of the second model of a pair."""
ORDERS = {"ab": "the other shown first", "ba": "the other shown second"}
LONG_RATIO = 1.5
"""Of two responses, one is clearly longer from this ratio of characters on."""
Responses = Mapping[str, Mapping[str, Response]]
Value = Callable[[Verdict], float | None]
Found = tuple[str, str, int, Interval | float]
"""Part, measure, number of questions, value."""


class Figure(NamedTuple):
    """One measure of one judge, as a share unless it is a kappa or log-odds."""

    judge: str
    model: str
    against: str
    """The other model of the pair; empty for a model that is graded alone."""
    part: str
    """All questions, a topic, a turn, an order, a language."""
    measure: str
    num: int
    """Questions."""
    value: float
    low: float | None = None
    high: float | None = None


def figures(
    verdicts: Iterable[Verdict], responses: Responses, doubted: Collection[str] = ()
) -> list[Figure]:
    """Return the figures of every judge and pair of models, and of models graded alone."""
    compared = list[Figure]()
    for (judge, a, b), rows in _groups(verdicts, lambda row: (row.judge, row.a, row.b)).items():
        parts = {ALL: rows}
        if any(row.item_id in doubted for row in rows):
            parts[UNDOUBTED] = [row for row in rows if row.item_id not in doubted]
        for key in (lambda row: row.topic, lambda row: f"turn {row.turn}"):
            some = _groups(rows, key)
            parts |= dict(sorted(some.items())) if len(some) > 1 else {}
        found = [*_missing(rows)]
        for part, inside in parts.items():
            found += _pair(inside, part, responses) if b else _alone(inside, part)
        compared += [_figure(judge, b or a, a if b else "", each) for each in found]
    for judge, rows in _groups((row for row in verdicts if row.b), lambda row: row.judge).items():
        compared += _ranking(judge, rows, responses)
    return compared


def _figure(judge: str, model: str, against: str, found: Found) -> Figure:
    *about, value = found
    limits = (value.value, value.low, value.high) if isinstance(value, Interval) else (value,)
    return Figure(judge, model, against, *about, *limits)  # type: ignore[arg-type]


def _groups(rows: Iterable[Verdict], key: Callable[[Verdict], Any]) -> dict[Any, list[Verdict]]:
    found: dict[Any, list[Verdict]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def _points(row: Verdict) -> float | None:
    return POINTS[row.winner] if row.winner else None


def _share(row: Verdict) -> float | None:
    return None if row.score is None else row.score / 10


def by_question(rows: Iterable[Verdict], value: Value, repeat: int = 0) -> dict[str, list[float]]:
    """Return a value for each order of each question that has it in every order and turn."""
    found: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.repeat == repeat:
            found[row.item_id][row.order].append(value(row))
    orders = sorted({order for some in found.values() for order in some})
    return {
        name: [fmean(some[order]) for order in orders]  # type: ignore[arg-type]
        for name, some in found.items()
        if len(some) == len(orders) and not any(None in values for values in some.values())
    }


def _repeats(rows: list[Verdict], value: Value) -> list[tuple[float, float]]:
    first, second = by_question(rows, value), by_question(rows, value, 1)
    names = [name for name in second if name in first]
    return [pair for name in names for pair in zip(first[name], second[name], strict=True)]


def _missing(rows: Iterable[Verdict]) -> Iterator[Found]:
    asked = [bool(row.missing) for row in rows if row.missing != NO_RESPONSE]
    if asked:
        yield ALL, "missing verdicts", len(asked), bounded_mean(asked)


def _pair(rows: list[Verdict], part: str, responses: Responses) -> Iterator[Found]:
    if not (points := by_question(rows, _points)):
        return
    for measure, each in win_rate([*points.values()], _repeats(rows, _points)).items():
        if part == ALL or measure == "win rate":
            yield part, measure, len(points), each
    by_order = _groups(rows, lambda row: row.order) if part == ALL else {}
    parts = {part: rows}  # the share of the other's grades in each order alone: Orca's Table 7
    parts |= {ORDERS[n]: some for n, some in by_order.items() if n and len(by_order) > 1}
    for name, some in parts.items():
        grades = (by_question(some, attrgetter(grade)) for grade in ("score_b", "score"))
        own, other = ([sum(each) for each in column.values()] for column in grades)
        if sum(other) > 0:
            yield name, "share of the other's grades", len(own), grade_ratio(own, other)
    texts = _texts(responses, [(rows[0].b, rows[0].a, name) for name in points])
    if texts and part == ALL:
        lengths = ([len(text) for text in column] for column in zip(*texts, strict=True))
        equal = length_controlled([fmean(each) for each in points.values()], *lengths)
        yield part, "length-controlled win rate", len(points), equal


def _alone(rows: list[Verdict], part: str) -> Iterator[Found]:
    if grades := by_question(rows, _share):
        noise = [(x - y) ** 2 / 2 for x, y in _repeats(rows, _share)]
        values = [each for (each,) in grades.values()]
        mean = bounded_mean(values, least_variance=fmean(noise or [0.0]))
        yield part, "mean grade / 10", len(grades), mean


def _ranking(judge: str, rows: list[Verdict], responses: Responses) -> Iterator[Figure]:
    """Yield Bradley-Terry strengths for more than two models, and win rates at equal style."""
    compared = [
        (b, a, name, fmean(points))
        for (a, b), some in _groups(rows, lambda row: (row.a, row.b)).items()
        for name, points in by_question(some, _points).items()
    ]
    if not compared:
        return
    reference = rows[0].a
    first, second, questions, points = zip(*compared, strict=True)
    measures: dict[str, Any] = {"Bradley-Terry": None} if len({*first, *second}) > 2 else {}
    if texts := _texts(responses, [each[:3] for each in compared]):
        own, other = ([style_of(text) for text in column] for column in zip(*texts, strict=True))
        measures["style-controlled win rate"] = style_difference(own, other)
    for measure, style in measures.items():
        results, num = (first, second, points, questions), len(set(questions))
        wins, slopes = bradley_terry(*results, reference=reference, style=style)
        for name, each in wins.items():
            yield _figure(judge, name, reference, (ALL, measure, num, each))
        for name, slope in zip(STYLE, slopes, strict=False):
            yield _figure(judge, "", "", (name, SLOPE, num, slope))


def _texts(responses: Responses, compared: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Return both responses of each comparison (model, other model, question), if all are known."""
    try:
        return [
            tuple("\n\n".join(responses[name][each].turns) for name in pair)  # type: ignore[misc]
            for *pair, each in compared
        ]
    except KeyError:
        return []


def check_judge(
    verdicts: Sequence[Verdict],
    labels: Sequence[Verdict],
    responses: Responses,
    questions: Mapping[str, str],
) -> list[Figure]:
    """Return a judge's agreement with people and its biases, over all pairs and parts of them.

    A pair's verdict is that of both orders together, people's that of their majority. Position
    bias is what being shown first gains; length bias is how much more often than people the judge
    prefers the longer response; self-preference is the same for the judge's own model. `questions`
    are texts by id.
    """
    judge, sides = verdicts[0].judge, (verdicts[0].a, verdicts[0].b)
    found, said = [*_missing(verdicts)], by_question(verdicts, _points)
    by_person: dict[str, dict[str, float]] = defaultdict(dict)
    for row in labels:
        if row.winner:
            by_person[row.judge][row.item_id] = POINTS[row.winner]
    people = {n: some for n in said if (some := [p[n] for p in by_person.values() if n in p])}
    ours = {name: _called(fmean(said[name])) for name in people}
    theirs = {name: _majority(points) for name, points in people.items()}
    texts = dict(zip(people, _texts(responses, [(*sides, n) for n in people]), strict=False))
    for part, inside in _kinds(texts, questions).items():
        found += _kappas(part, KAPPA, ours, {n: theirs[n] for n in inside if theirs[n]})
    called = {p: {n: _called(each) for n, each in some.items()} for p, some in by_person.items()}
    for one, other in combinations(called, 2):
        found += _kappas(f"{one} and {other}", PEOPLE, called[one], called[other])
    if both := [points for points in said.values() if len(points) == 2]:
        rates = win_rate(both)
        found.append((ALL, "flips", len(both), rates["flips"]))
        found.append((ALL, "position bias", len(both), _signed(rates["shown first"])))
    lengths = {name: [*map(len, pair)] for name, pair in texts.items()}
    writers = {name: [responses[side][name].model.lower() for side in sides] for name in texts}
    own = {n: [int(w != "" and w in judge.lower()) for w in both] for n, both in writers.items()}
    for measure, pairs in {"length bias": lengths, "self-preference": own}.items():
        gaps = [
            (1 if b > a else -1) * (fmean(said[name]) - fmean(people[name]))
            for name, (a, b) in pairs.items()
            if a != b
        ]
        if gaps:
            mean = _signed(bounded_mean([(1 + gap) / 2 for gap in gaps]))
            found.append((ALL, measure, len(gaps), mean))
    return [_figure(judge, "", "", each) for each in found]


def _kinds(
    texts: Mapping[str, tuple[str, str]], questions: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the pairs of each language, and those with and without a clearly longer response."""
    kinds: dict[str, list[str]] = defaultdict(list, {ALL: list(texts)})
    for name, pair in texts.items():
        kinds[f"language {language_of(questions[name]) or 'unclear'}"].append(name)
        short, long = sorted(map(len, pair))
        kinds["lengths differ" if long > LONG_RATIO * short else "similar lengths"].append(name)
    return kinds


def _kappas(
    part: str, measure: str, one: Mapping[str, str], other: Mapping[str, str]
) -> Iterator[Found]:
    both = [(one[name], said) for name, said in other.items() if name in one]
    if len({each for pair in both for each in pair}) > 1:
        first, second = zip(*both, strict=True)
        yield part, measure, len(both), nominal_kappa(first, second)


def _called(points: float) -> str:
    return "tie" if points == 0.5 else "b" if points > 0.5 else "a"


def _majority(points: Sequence[float]) -> str:
    """Return what more than half of the people said; empty without such a majority."""
    ((said, num),) = Counter(map(_called, points)).most_common(1)
    return said if 2 * num > len(points) else ""


def _signed(share: Interval) -> Interval:
    """Return a share as a difference from an even split, from -1 to 1."""
    return Interval(*(2 * each - 1 for each in (share.value, share.low, share.high)))
