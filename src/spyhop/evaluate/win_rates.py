"""What verdicts come to: one row per judge, pair of models, part of the questions, and measure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

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
from spyhop.text.style import FEATURES, style_of

ALL, UNDOUBTED, LEVEL = "all", "without doubted references", 0.95
HIGHEST_GRADE = 10.0
LONG_RATIO = 1.5
"""Of two responses, one is clearly longer from this ratio of characters on."""
Responses = Mapping[str, Mapping[str, Response]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure of one judge with its interval, as shares unless it says otherwise."""

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


Make = Callable[[str, str, int, "Interval | float"], Figure]


def figures(
    verdicts: Iterable[Verdict], responses: Responses, doubted: Collection[str] = ()
) -> list[Figure]:
    """Return the figures of every judge and pair of models, and of models graded alone."""
    groups: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for row in verdicts:
        groups[row.judge, row.a, row.b].append(row)
    found: list[Figure] = []
    for (judge, a, b), rows in groups.items():
        model, against = (b, a) if b else (a, "")
        measure = _pair if b else _alone
        for part, some in _parts(rows, doubted).items():
            found += measure(some, _maker(judge, model, against, part), part, responses)
    for judge in dict.fromkeys(judge for judge, _, b in groups if b):
        found += _ranking(
            [r for (j, _, b), rows in groups.items() if j == judge and b for r in rows], responses
        )
    return found


def _maker(judge: str, model: str, against: str, part: str) -> Make:
    def make(part_: str, measure: str, num: int, found: Interval | float) -> Figure:
        where = part_ or part
        if isinstance(found, Interval):
            return Figure(
                judge, model, against, where, measure, num, found.value, found.low, found.high
            )
        return Figure(judge, model, against, where, measure, num, found)

    return make


def _parts(rows: Sequence[Verdict], doubted: Collection[str]) -> dict[str, list[Verdict]]:
    """Return the verdicts of all questions, then those of each part of them."""
    parts = {ALL: list(rows)}
    if any(row.item_id in doubted for row in rows):
        parts[UNDOUBTED] = [row for row in rows if row.item_id not in doubted]
    names: list[Callable[[Verdict], str]] = [
        lambda row: row.topic, lambda row: f"turn {row.turn}",
    ]  # fmt: skip
    for name in names:
        some: dict[str, list[Verdict]] = defaultdict(list)
        for row in rows:
            some[name(row)].append(row)
        if len(some) > 1:
            parts |= dict(sorted(some.items()))
    return parts


def points_of(row: Verdict) -> float | None:
    """Return what the second model of a pair gets: 1 for a win, 0.5 for a tie; None if missing."""
    return {"a": 0.0, "tie": 0.5, "b": 1.0}[row.winner] if row.winner else None


def by_question(
    rows: Iterable[Verdict], value: Callable[[Verdict], float | None], repeat: int = 0
) -> dict[str, dict[str, float]]:
    """Return a value per order of each question that has it in every order and turn."""
    found: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.repeat == repeat:
            found[row.item_id][row.order].append(value(row))
    orders = {order for some in found.values() for order in some}
    return {
        name: {order: float(np.mean(some[order])) for order in sorted(orders)}  # type: ignore[arg-type]
        for name, some in found.items()
        if set(some) == orders and all(v is not None for values in some.values() for v in values)
    }


def _repeats(
    rows: Sequence[Verdict], value: Callable[[Verdict], float | None]
) -> list[tuple[float, float]]:
    first, second = by_question(rows, value), by_question(rows, value, 1)
    return [
        (first[name][order], again)
        for name, some in second.items() if name in first
        for order, again in some.items()
    ]  # fmt: skip


def _pair(rows: list[Verdict], make: Make, part: str, responses: Responses) -> Iterator[Figure]:
    num_asked = [float(bool(row.missing)) for row in rows if row.missing != "no_response"]
    if num_asked:
        yield make("", "missing verdicts", len(num_asked), bounded_mean(num_asked))
    points = by_question(rows, points_of)
    if not points:
        return
    found = win_rate([list(each.values()) for each in points.values()], _repeats(rows, points_of))
    yield make("", "win rate", found.num, found.rate)
    yield from _grade_ratios(rows, make, part)
    if part != ALL:
        return
    for name, num in (
        ("wins", found.num_wins),
        ("ties", found.num_ties),
        ("losses", found.num_losses),
    ):
        yield make("", name, found.num, float(num))
    extras = {
        "flips": found.flips, "points of the response shown first": found.first,
        "win rate, the same questions judged again": found.same_questions,
    }  # fmt: skip
    for name, each in extras.items():
        if each is not None:
            yield make("", name, found.num, each)
    pair = (rows[0].b, rows[0].a)
    texts = [shown for each in points if (shown := _texts(responses, pair, each)) is not None]
    if len(texts) == len(points):
        own, other = ([len(text) for text in column] for column in zip(*texts, strict=True))
        means = [float(np.mean(list(each.values()))) for each in points.values()]
        equal = length_controlled(means, own, other)
        yield make("", "length-controlled win rate", found.num, equal)


def _grade_ratios(rows: list[Verdict], make: Make, part: str) -> Iterator[Figure]:
    """Yield the share of the reference's grades, and in each order alone: Orca's Table 7."""
    orders = dict.fromkeys(row.order for row in rows)
    for order in (None, *orders) if len(orders) > 1 and part == ALL else (None,):
        some = [row for row in rows if order in (None, row.order)]
        grades = [
            by_question(some, get) for get in (lambda row: row.score_b, lambda row: row.score)
        ]
        own, other = ([sum(each.values()) for each in column.values()] for column in grades)
        if own and sum(other) > 0:
            ratio, interval = grade_ratio(own, other)
            shown = {"ab": "the other shown first", "ba": "the other shown second"}
            where = shown.get(order or "", "")
            yield make(where, "share of the other's grades", len(own), interval or ratio)


def _alone(rows: list[Verdict], make: Make, part: str, responses: Responses) -> Iterator[Figure]:
    asked = [float(bool(row.missing)) for row in rows if row.missing != "no_response"]
    if asked:
        yield make("", "missing verdicts", len(asked), bounded_mean(asked))

    def share(row: Verdict) -> float | None:
        return None if row.score is None else row.score / HIGHEST_GRADE

    grades = [each[""] for each in by_question(rows, share).values()]
    if grades:
        again = _repeats(rows, share)
        noise = float(np.mean([(x - y) ** 2 for x, y in again])) / 2 if again else 0.0
        yield make("", "mean grade / 10", len(grades), bounded_mean(grades, least_variance=noise))


def _ranking(rows: list[Verdict], responses: Responses) -> Iterator[Figure]:
    """Yield Bradley-Terry strengths for more than two models, and at equal style."""
    judge, reference = rows[0].judge, rows[0].a
    pairs: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for row in rows:
        pairs[row.a, row.b].append(row)
    first, second, points, questions = list[str](), list[str](), list[float](), list[str]()
    for (a, b), some in pairs.items():
        for name, values in by_question(some, points_of).items():
            first.append(b)
            second.append(a)
            questions.append(name)
            points.append(float(np.mean(list(values.values()))))
    if not points:
        return
    num = len(set(questions))
    if len({*first, *second}) > 2:
        strengths = bradley_terry(first, second, points, questions, reference=reference)
        for name, each in strengths.wins.items():
            yield _maker(judge, name, reference, ALL)("", "Bradley-Terry", num, each)
    compared = zip(first, second, questions, strict=True)
    texts = [shown for a, b, each in compared if (shown := _texts(responses, (a, b), each))]
    if len(texts) < len(points):
        return
    own, other = ([style_of(text) for text in column] for column in zip(*texts, strict=True))
    controlled = bradley_terry(
        first, second, points, questions, reference=reference,
        style=style_difference(own, other), features=FEATURES,
    )  # fmt: skip
    for name, each in controlled.wins.items():
        if name != reference:
            yield _maker(judge, name, reference, ALL)("", "style-controlled win rate", num, each)
    for name, slope in controlled.style.items():
        yield _maker(judge, "", "", name)("", "log-odds per standard deviation", num, slope)


def _texts(responses: Responses, models: Sequence[str], question: str) -> list[str] | None:
    """Return the responses of all these models, or None if one has none."""
    found = [responses.get(name, {}).get(question) for name in models]
    return None if None in found else ["\n\n".join(each.turns) for each in found if each]


def check_judge(
    verdicts: Sequence[Verdict],
    labels: Sequence[Verdict],
    responses: Responses,
    questions: Mapping[str, str],
) -> Iterator[Figure]:
    """Yield a judge's agreement with people and its biases, over all pairs and parts of them.

    A pair's verdict is that of both orders together, people's is that of their majority. Position
    bias is what being shown first gains; length bias is how much more often than people the judge
    prefers the longer response; self-preference is the same for the judge's own model.

    Args:
        verdicts: Of one judge.
        labels: Of people, as verdicts on the same pairs.
        responses: By side and question.
        questions: Texts by id.
    """
    judge, sides = verdicts[0].judge, (verdicts[0].a, verdicts[0].b)
    said = {name: list(each.values()) for name, each in by_question(verdicts, points_of).items()}
    people: dict[str, list[float]] = defaultdict(list)
    by_person: dict[str, dict[str, str]] = defaultdict(dict)
    for row in labels:
        if (point := points_of(row)) is not None:
            people[row.item_id].append(point)
            by_person[row.judge][row.item_id] = _called(point)
    make = _maker(judge, *sides, ALL)
    names = [name for name in said if name in people]
    missing = [float(bool(row.missing)) for row in verdicts]
    yield make("", "missing verdicts", len(missing), bounded_mean(missing))
    ours = {name: _called(float(np.mean(said[name]))) for name in names}
    theirs = {name: most for name in names if (most := _majority(people[name]))}
    for part, some in _kinds(names, sides, responses, questions).items():
        yield from _kappas(make, part, "agreement with people (kappa)", ours, theirs, some)
    for one, other in combinations(by_person, 2):
        yield from _kappas(
            make,
            f"{one} and {other}",
            "people among themselves (kappa)",
            by_person[one],
            by_person[other],
            names,
        )
    if both := [values for values in said.values() if len(values) == 2]:
        found = win_rate(both)
        if found.first and found.flips:
            yield make("", "position bias", found.num, _signed(found.first))
            yield make("", "flips", found.num, found.flips)
    longer = {name: _sign(*map(len, _texts(responses, sides, name) or ["", ""])) for name in names}
    own = {
        name: _sign(*(_is_of(judge, responses[side].get(name)) for side in sides)) for name in names
    }
    for measure, signs in (("length bias", longer), ("self-preference", own)):
        gaps = [
            (1 + sign * float(np.mean(said[n]) - np.mean(people[n]))) / 2
            for n, sign in signs.items()
            if sign
        ]
        if gaps:
            yield make("", measure, len(gaps), _signed(bounded_mean(gaps)))


def _kinds(
    names: Sequence[str], sides: Sequence[str], responses: Responses, questions: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the pairs of each language, and those with and without a clearly longer response."""
    kinds: dict[str, list[str]] = defaultdict(list, {ALL: list(names)})
    for name in names:
        kinds[f"language {language_of(questions[name]) or 'unclear'}"].append(name)
        short, long = sorted(map(len, _texts(responses, sides, name) or ["", ""]))
        kinds["lengths differ" if long > LONG_RATIO * short else "similar lengths"].append(name)
    return kinds


def _kappas(
    make: Make,
    part: str,
    measure: str,
    one: Mapping[str, str],
    other: Mapping[str, str],
    names: Sequence[str],
) -> Iterator[Figure]:
    both = [name for name in names if name in one and name in other]
    first, second = [one[name] for name in both], [other[name] for name in both]
    if len({*first, *second}) > 1:
        yield make(part, measure, len(both), nominal_kappa(first, second))


def _called(points: float) -> str:
    return "tie" if points == 0.5 else "b" if points > 0.5 else "a"


def _majority(points: Sequence[float]) -> str:
    """Return what more than half of the people said; empty without such a majority."""
    ((said, num),) = Counter(map(_called, points)).most_common(1)
    return said if 2 * num > len(points) else ""


def _sign(a: float, b: float) -> int:
    return int(b > a) - int(a > b)


def _is_of(judge: str, response: Response | None) -> bool:
    return response is not None and bool(response.model) and response.model.lower() in judge.lower()


def _signed(share: Interval) -> Interval:
    """Return a share as a difference from an even split, from -1 to 1."""
    value, low, high = (2 * each - 1 for each in (share.value, share.low, share.high))
    return Interval(value=value, low=low, high=high, level=share.level)
