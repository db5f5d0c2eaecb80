"""Votes of people: write the page, read the votes."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from spyhop.cli.options import NO_PATHS, group
from spyhop.cli.running import print_table, say
from spyhop.evaluate.votes import (
    LEAST_PASSED,
    Tally,
    Votes,
    agreement,
    read_pairs,
    read_verdicts,
    read_votes,
    tallies,
)
from spyhop.statistics import Interval
from spyhop.store.atomic import atomic_write
from spyhop.studio.vote_page import vote_page


def vote_make(first: Path, second: Path, out: Path, screening: Path | None = None) -> None:
    """Write a page on which people vote.

    It is one self-contained file for a browser. Voters save their votes there as a file.
    """
    names, pairs = read_pairs(first, second, screening)
    with atomic_write(out) as temporary:
        temporary.write_text(vote_page(names, pairs), encoding="utf-8")
    num = sum(bool(pair.suite) for pair in pairs)
    say(f"{out}: {len(pairs) - num:,} pairs, {num:,} screening items")


def vote_read(
    files: list[Path],
    out: Path,
    judged: list[Path] = NO_PATHS,
    least_passed: float = LEAST_PASSED,
) -> None:
    """Report wins, ties and losses, and agreement.

    The votes are written as verdicts, one per person and item.
    """
    votes = read_votes(files, least_passed)
    found = tallies(votes, [row for path in judged for row in read_verdicts(path)])
    with atomic_write(out) as temporary:
        text = "".join(f"{row.model_dump_json()}\n" for row in votes.verdicts)
        temporary.write_text(text, encoding="utf-8")
    table = Table(box=None, pad_edge=False, title=f"{votes.a} against {votes.b}")
    for name in ("", "items", "votes", "win %", "tie %", "loss %", "kappa with people"):
        table.add_column(name, justify="right" if name else "left")
    for row in found:
        kappa = _shown(row.kappa) if row.kappa else ""
        shares = [_shown(each, 100) for each in row.shares]
        table.add_row(row.who, f"{row.items:,}", f"{row.votes:,}", *shares, kappa)
    print_table(table)
    say(*_notes(votes, found[0]))


vote = group(
    "Let people compare two models blindly, and read their votes.", make=vote_make, read=vote_read
)


def _shown(interval: Interval, unit: int = 1) -> str:
    limits = (interval.value, interval.low, interval.high)
    return "{} ({} to {})".format(*(f"{unit * each:.{1 if unit > 1 else 2}f}" for each in limits))


def _notes(votes: Votes, people: Tally) -> Iterator[str]:
    for who, (right, num) in votes.screened.items():
        if num:
            result = "not counted" if who in votes.failed else "passed"
            yield f"{who}: {right} of {num} screening items right, {result}"
    alpha = agreement(votes)
    unknown = "Agreement: needs two people on the same items, and more than one kind of vote"
    yield f"Krippendorff's alpha {_shown(alpha)}" if alpha else unknown
    if people.needed is None:
        yield "As many wins as losses: no number of votes is known that would settle it"
    else:
        yield f"Votes on {people.needed:,} items would settle it; there are {people.items:,}"
