"""Blind pairwise votes of people: pairs for a page, and what the saved votes say.

Source: Humpback (arXiv:2308.06259), section 3.5: two responses on random sides, three options,
raters that must pass screening items.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from spyhop.collect.shapes import first_exchange
from spyhop.evaluate.judging import SWAPPED
from spyhop.schema import InputError, Verdict
from spyhop.statistics import Interval, bounded_mean, krippendorff_alpha, nominal_kappa
from spyhop.store import row_id
from spyhop.store.rows import read_rows

LEAST_PASSED = 0.85
"""Share of screening items that a rater must get right, as in the paper."""
SETTLED_Z = (1.96 + 0.84) ** 2
"""A difference is found at the level 95 % with a power of 80 %."""
LEAST_ITEMS = 6
"""Fewest items that settle anything: a sign test of as many equal votes has p = 0.03."""
Exchange = tuple[str, str, str]
"""Id, question and response of a model's row."""
SCREENING, BETTER, WORSE = "screening", "better", "worse"
"""Suite of screening items, and the names of their two responses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VotePair:
    """Two responses to a question; of a screening item `a` is the better one."""

    id: str
    question: str
    a: str
    b: str
    suite: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What people, or a judge, say of a pair of models."""

    who: str
    items: int
    votes: int
    shares: tuple[Interval, ...]
    """Wins, ties and losses of the first model, over items."""
    kappa: Interval | None = None
    """Of a judge: agreement with the people's majority on the same items."""
    needed: int | None = None
    """Items with votes that would settle who is better; None if the two are level."""


@dataclass(frozen=True, slots=True)
class Votes:
    """All votes that were read."""

    a: str
    b: str
    verdicts: list[Verdict]
    """Of raters that passed; screening items are not among them."""
    screened: dict[str, tuple[int, int]]
    """Right screening items and all of them, by rater."""
    failed: list[str]
    """Raters that did not pass."""


def read_pairs(
    first: Path, second: Path, screening: Path | None = None
) -> tuple[tuple[str, str], list[VotePair]]:
    """Return the names of both models, and the pairs to vote on: screening items come last.

    A model's name is the `model` of its rows if they all state the same, else the file's name.
    Rows of any shape with a question and a response are matched by `id`, or by the question where
    the files share no id; files that share no question are an error. Equal responses are no pair.
    """
    (name_a, side_a), (name_b, side_b) = (_responses(path) for path in (first, second))
    if name_a == name_b:
        name_a, name_b = (f"{path.parent.name}/{path.stem}" for path in (first, second))
    pairs = match_pairs(side_a, side_b)
    if not pairs:
        raise InputError(f"{second}: no question of {first} is among its rows")
    pairs = [pair for pair in pairs if pair.a != pair.b]
    if not pairs:
        raise InputError(f"{second}: all responses are equal to those of {first}")
    return (name_a, name_b), [*pairs, *(read_screening(screening) if screening else [])]


def match_pairs(first: Sequence[Exchange], second: Sequence[Exchange]) -> list[VotePair]:
    """Return the common questions of two models by id, or by text where they share no id."""
    for by in (0, 1):
        a, b = ({row[by]: row[1:] for row in reversed(side)} for side in (first, second))
        if shared := [key for key in a if key and key in b]:
            break
    return [
        VotePair(id=row_id(key) if by else key, question=a[key][0], a=a[key][1], b=b[key][1])
        for key in reversed(shared)
    ]


def _responses(path: Path) -> tuple[str, list[Exchange]]:
    found, names = [], set()
    for where, row in read_rows(path):
        question, response, why = first_exchange(row, where)
        if why:
            raise InputError(f"{where}: no question with a response ({why})")
        found.append((str(row.get("id") or row.get("item_id") or ""), question, response))
        names.add(str(row.get("model") or path.stem))
    return names.pop() if len(names) == 1 else path.stem, found


def read_screening(path: Path) -> list[VotePair]:
    """Return the screening items of a file: rows of `question`, `better` and `worse`."""
    found = []
    for where, row in read_rows(path):
        texts = [row.get(name) for name in ("question", BETTER, WORSE)]
        if not all(isinstance(text, str) and text for text in texts):
            raise InputError(f"{where}: a screening item needs question, better and worse")
        question, a, b = map(str, texts)
        name = row_id(SCREENING, question, a, b)
        found.append(VotePair(id=name, question=question, a=a, b=b, suite=SCREENING))
    return found


def read_votes(paths: Sequence[Path], least_passed: float = LEAST_PASSED) -> Votes:
    """Read files of votes: rows of verdicts, as the page saves them and the studio keeps them.

    A file given twice counts once. A file on other models than the first one is an error, and so is
    another vote of a person on the same item.
    """
    names: tuple[str, str] | None = None
    votes: dict[tuple[str, str], Verdict] = {}
    for path in paths:
        for vote in read_verdicts(path):
            names = names or ((vote.a, vote.b) if vote.suite != SCREENING else None)
            if vote.suite != SCREENING and names not in ((vote.a, vote.b), (vote.b, vote.a)):
                both = " and ".join(names or ())
                raise InputError(f"{path}: votes on {vote.a} and {vote.b}, not on {both}")
            which = f"vote of {vote.judge} on {vote.item_id}"
            if vote.winner is None:
                raise InputError(f"{path}: the {which} has no winner")
            if votes.setdefault((vote.judge, vote.item_id), vote) != vote:
                raise InputError(f"{path}: a second, different {which}")
    return count_votes(votes.values(), names or ("", ""), least_passed)


def count_votes(
    rows: Iterable[Verdict], names: tuple[str, str], least_passed: float = LEAST_PASSED
) -> Votes:
    """Return the votes of the raters that passed the screening items, and who did not pass."""
    votes = list(rows)
    right: dict[str, list[bool]] = {vote.judge: [] for vote in votes}
    for vote in votes:
        if vote.suite == SCREENING:
            right[vote.judge].append(vote.winner == "a")
    failed = [who for who, each in right.items() if sum(each) < least_passed * len(each)]
    verdicts = [
        vote.model_copy(update={"id": row_id(vote.item_id, vote.judge)})
        for vote in votes
        if vote.suite != SCREENING and vote.judge not in failed
    ]
    return Votes(*names, verdicts, {w: (sum(each), len(each)) for w, each in right.items()}, failed)


def tallies(votes: Votes, judged: Sequence[Verdict] = ()) -> list[Tally]:
    """Return the people's tally, and one per judge of verdicts on the same two models."""
    names = (votes.a, votes.b)
    people = _by_item(votes.verdicts, names)
    if not people:
        raise InputError("no vote is left: every rater failed the screening items, or voted none")
    found = [_tally("people", people)]
    judges: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in judged:
        judges[verdict.judge].append(verdict)
    for judge, verdicts in judges.items():
        by_item = _by_item(verdicts, names)
        if not by_item.keys() & people.keys():
            both = " and ".join(names)
            raise InputError(f"judge {judge}: no verdict on {both} and an item with votes")
        found.append(_tally(judge, by_item, people))
    return found


def _by_item(verdicts: Sequence[Verdict], names: tuple[str, str]) -> dict[str, list[str]]:
    """Return the winners of each item, as `a` and `b` of these names."""
    found: dict[str, list[str]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.winner is not None and (verdict.a, verdict.b) == names:
            found[verdict.item_id].append(verdict.winner)
        elif verdict.winner is not None and (verdict.b, verdict.a) == names:
            found[verdict.item_id].append(SWAPPED[verdict.winner])
    return dict(found)


def agreement(votes: Votes) -> Interval | None:
    """Return Krippendorff's alpha; None without two people on an item, or two kinds of votes."""
    units = _by_item(votes.verdicts, (votes.a, votes.b)).values()
    with suppress(ValueError):
        return krippendorff_alpha(list(units))
    return None


def _tally(
    who: str, by_item: Mapping[str, list[str]], people: Mapping[str, list[str]] | None = None
) -> Tally:
    shares = np.array(
        [[each.count(side) / len(each) for side in ("a", "tie", "b")] for each in by_item.values()]
    )
    kappa, both = None, [item for item in by_item if item in (people or {})]
    with suppress(ValueError):  # kappa is undefined where all say the same
        sides = ([_majority(some[item]) for item in both] for some in (people or {}, by_item))
        kappa = nominal_kappa(*sides)
    leads = shares[:, 0] - shares[:, 2]
    mean, spread = float(leads.mean()), float(leads.var())
    return Tally(
        who=who,
        items=len(by_item),
        votes=sum(map(len, by_item.values())),
        shares=tuple(map(bounded_mean, shares.T)),
        kappa=kappa,
        needed=max(LEAST_ITEMS, ceil(SETTLED_Z * spread / mean**2)) if mean else None,
    )


def _majority(winners: Sequence[str]) -> str:
    lead = winners.count("a") - winners.count("b")
    return "tie" if lead == 0 else "a" if lead > 0 else "b"


def read_verdicts(path: Path) -> list[Verdict]:
    """Return rows of verdicts, as `spyhop judge` writes them."""
    found = []
    for where, row in read_rows(path):
        try:
            found.append(Verdict.model_validate(row))
        except ValidationError:
            raise InputError(f"{where}: not a verdict of `spyhop judge`, nor a vote") from None
    return found
