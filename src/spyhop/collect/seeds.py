"""Seed pairs: instructions with responses that people wrote, from the sets that are published.

Source: Humpback (arXiv:2308.06259), section 3.1: 3,200 pairs of Open Assistant.
"""

import re
from collections.abc import Callable, Iterator
from heapq import nsmallest
from pathlib import Path
from typing import Literal

from pydantic import Field

from spyhop.collect.oasst import Turns, read_oasst
from spyhop.collect.shapes import first_exchange
from spyhop.schema import Config, InputError, Pair
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, number_of, row_id
from spyhop.store.files import field
from spyhop.store.rows import read_rows, row_files
from spyhop.text.end_marks import without_end_marks

SeedKind = Literal["oasst", "lima", "dolly", "self_instruct", "pairs"]
LICENCES = {
    "oasst": "Apache-2.0",
    "lima": "CC-BY-NC-SA",
    "dolly": "CC-BY-SA-3.0",
    "self_instruct": "Apache-2.0",
    "pairs": "",
}
"""As the data sets state them; LIMA's is for non-commercial use."""
_INPUT = re.compile(r"\s*### Input:\s*")
_RENDERED = re.compile(r"### Instruction:\s*(.*?)\s*### Response:", re.DOTALL)


class SeedsConfig(Config):
    """Seed pairs to read and draw."""

    kind: SeedKind
    """Format of the seeds. `pairs` are your own: rows of `instruction` and `response`, or
    `messages` that end with a response, as JSONL, JSON lists, CSV or Parquet."""
    pattern: str = "*"
    """Glob of the files to read, if the path is a folder."""
    language: str = "en"
    """Of Open Assistant's trees; the other sets are English."""
    licence: str = ""
    """Of `pairs`; empty for the others takes the data set's own."""
    num_rows: int | None = Field(None, gt=0)
    """Pairs to draw. Default: all. A larger draw contains the smaller ones."""


def pair_id(instruction: str, response: str) -> str:
    """Return the id of a pair: the hash of its two texts."""
    return row_id("pair", instruction, response)


def plan_seeds(config: SeedsConfig, folder: Estimate) -> Estimate:
    """As many as are asked for, else one per row."""
    rows = min(folder.rows, config.num_rows) if config.num_rows else folder.rows
    return Estimate(rows=rows, row_tokens=folder.row_tokens)


@stage(version=3, writes=Pair, plan=plan_seeds)
def read_seeds(ctx: Context, config: SeedsConfig, *, folder: Artifact) -> Iterator[Pair]:
    """Read seed pairs of one data set, tagged `seed`, in the order of the files.

    End tokens of other formats behind a text, such as Dolly's `###eos_token###`, are removed; rows
    with one are counted as `end_marks`. Dropped with their reason: `empty` (either text),
    `repeated` (the same two texts before), `no_first_reply` and `other_language` (Open Assistant),
    `no_exchange` and `not_text` (see `first_exchange`), `not_drawn`.
    """
    kept = []
    seen: set[str] = set()
    for path in row_files(folder.path, config.pattern):
        for turns in READERS[config.kind](path, config):
            row = _pair(config, turns)
            ctx.count("end_marks", int(row.response != turns.response))
            reason = turns.reason or ("empty" if _is_empty(row) else "")
            if reason or row.id in seen:
                ctx.drop(row, reason or "repeated")
                continue
            seen.add(row.id)
            kept.append(row)
    drawn = seen
    if config.num_rows is not None:
        place = lambda name: number_of(f"0/{name}")  # noqa: E731
        drawn = set(nsmallest(config.num_rows, seen, key=place))
    for row in kept:
        if row.id in drawn:
            ctx.count(f"collection/{row.collection}")
            yield row
        else:
            ctx.drop(row, "not_drawn")


def _pair(config: SeedsConfig, turns: Turns) -> Pair:
    instruction, response = map(without_end_marks, (turns.instruction, turns.response))
    return Pair(
        id=pair_id(instruction, response),
        instruction=instruction,
        response=response,
        tag="seed",
        collection=config.kind,
        origin=turns.origin,
        licence=config.licence or LICENCES[config.kind],
    )


def _is_empty(row: Pair) -> bool:
    return not row.instruction.strip() or not row.response.strip()


def _oasst(path: Path, config: SeedsConfig) -> Iterator[Turns]:
    return read_oasst(path, config.language)


def _lima(path: Path, config: SeedsConfig) -> Iterator[Turns]:
    """Read conversations as lists of texts: the first two turns of each."""
    for where, row in read_rows(path):
        said = field(row, "conversations", where, list)
        if not said or not all(isinstance(text, str) for text in said):
            raise InputError(f"{where}: 'conversations' is not a list of texts: {said!r:.80}")
        yield Turns(said[0], said[1] if len(said) > 1 else "", _place(path, where))


def _dolly(path: Path, config: SeedsConfig) -> Iterator[Turns]:
    """Read `instruction`, `context` and `response`, or a rendered `prompt` and its `answer`.

    Of a rendered prompt the instruction is the text below its headings.
    """
    for where, row in read_rows(path):
        if "prompt" in row:
            asked = field(row, "prompt", where)
            found = _RENDERED.search(asked)
            asked = _INPUT.sub("\n\n", found[1]) if found else asked
            yield Turns(asked.strip(), field(row, "answer", where), _place(path, where))
            continue
        context = field(row, "context", where) if row.get("context") else ""
        yield _joined(field(row, "instruction", where), context, row, "response", path, where)


def _self_instruct(path: Path, config: SeedsConfig) -> Iterator[Turns]:
    """Read a task's instruction with each of its instances."""
    for where, row in read_rows(path):
        for instance in field(row, "instances", where, list):
            asked = field(row, "instruction", where)
            given = field(instance, "input", where)
            yield _joined(asked, given, instance, "output", path, where)


def _pairs(path: Path, config: SeedsConfig) -> Iterator[Turns]:
    for where, row in read_rows(path):
        asked, said, reason = first_exchange(row, where)
        yield Turns(asked, said, _place(path, where), reason)


def _joined(asked: str, given: str, row: object, response: str, path: Path, where: str) -> Turns:
    both = f"{asked}\n\n{given}" if given.strip() else asked
    return Turns(both, field(row, response, where), _place(path, where))


def _place(path: Path, where: str) -> str:
    return f"{path.name}{where.removeprefix(str(path))}"


READERS: dict[SeedKind, Callable[[Path, SeedsConfig], Iterator[Turns]]] = {
    "oasst": _oasst,
    "lima": _lima,
    "dolly": _dolly,
    "self_instruct": _self_instruct,
    "pairs": _pairs,
}
