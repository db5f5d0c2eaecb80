"""Pairs: seeds that people wrote, from the sets that are published, and pairs from and to files.

Source: Humpback (arXiv:2308.06259), section 3.1: 3,200 pairs of Open Assistant.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from heapq import nsmallest
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import to_json

from spyhop.collect.columns import origin_of
from spyhop.collect.shapes import Shape, first_exchange
from spyhop.schema import Config, InputError, Pair
from spyhop.stage import FOLDER, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, number_of, row_id
from spyhop.store.files import field, json_lines
from spyhop.store.rows import read_rows, row_files
from spyhop.text.thought import without_end_marks

PAIRS = "pairs.jsonl"
SeedKind = Literal["oasst", "lima", "dolly", "self_instruct", "pairs"]
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


@stage(
    version=3,
    writes=Pair,
    plan=lambda config, folder: Estimate(
        rows=min(folder.rows, config.num_rows or folder.rows), row_tokens=folder.row_tokens
    ),
)
def read_seeds(ctx: Context, config: SeedsConfig, *, folder: Artifact) -> Iterator[Pair]:
    """Read seed pairs of one data set, tagged `seed`, in the order of the files.

    End tokens of other formats behind a text, such as Dolly's `###eos_token###`, are removed; rows
    with one are counted as `end_marks`. Dropped with their reason: `empty` (either text),
    `repeated` (the same two texts before), `no_first_reply` and `other_language` (Open Assistant),
    `no_exchange` and `not_text` (see `first_exchange`), `not_drawn`.
    """
    kept: dict[str, Pair] = {}
    read, licence = _SEEDS[config.kind]
    for path in row_files(folder.path, config.pattern):
        for asked, said, where, reason in read(path, config.language):
            instruction, response = map(without_end_marks, (asked, said))
            row = Pair(
                id=pair_id(instruction, response),
                instruction=instruction,
                response=response,
                tag="seed",
                collection=config.kind,
                origin=origin_of(path, where),
                licence=config.licence or licence,
            )
            ctx.count("end_marks", int(response != said))
            is_empty = not instruction.strip() or not response.strip()
            if reason or is_empty or row.id in kept:
                ctx.drop(row, reason or ("empty" if is_empty else "repeated"))
            else:
                kept[row.id] = row
    num = config.num_rows or len(kept)
    drawn = {*nsmallest(num, kept, key=lambda name: number_of(f"0/{name}"))}
    for row in kept.values():
        if row.id in drawn:
            ctx.count(f"collection/{row.collection}")
            yield row
        else:
            ctx.drop(row, "not_drawn")


Turns = tuple[str, str, str, str]
"""An instruction, its response, its place, and the reason why there is no pair (or nothing)."""


def _oasst(path: Path, language: str) -> Iterator[Turns]:
    """Yield one pair per tree of Open Assistant: the opening message and its reply of rank 0.

    Both forms of the published files are read: one message a line (with `parent_id`; openings are
    held in memory), or one tree a line (with `prompt` and nested `replies`). Deleted messages are
    passed over.
    """
    openings: dict[str, tuple[str, str, str]] = {}
    replies: dict[str, tuple[str, str]] = {}
    for where, row in json_lines(path):
        if isinstance(row, Mapping) and "prompt" in row:
            tree = field(row, "prompt", where, dict)
            if not tree.get("deleted"):
                opening = field(tree, "text", where), field(tree, "lang", where), where
                first = next(filter(_is_first, field(tree, "replies", where, list)), None)
                reply = (field(first, "text", where), where) if first else None
                yield _opened(opening, reply, language)
            continue
        if isinstance(row, Mapping) and row.get("deleted"):
            continue
        text, parent = field(row, "text", where), field(row, "parent_id", where, (str, type(None)))
        role = field(row, "role", where)
        if parent is not None:
            if _is_first(row):
                replies.setdefault(parent, (text, where))
        elif role != "prompter":
            raise InputError(f"{where}: a message without parent_id has the role {role!r}")
        else:
            openings[field(row, "message_id", where)] = text, field(row, "lang", where), where
    answered = [name for name in replies if name in openings]
    for name in [*answered, *(name for name in openings if name not in replies)]:
        yield _opened(openings[name], replies.get(name), language)


def _is_first(reply: Mapping[str, Any]) -> bool:
    is_first = reply.get("role") == "assistant" and reply.get("rank") == 0
    return is_first and not reply.get("deleted")


def _opened(opening: tuple[str, str, str], reply: tuple[str, str] | None, language: str) -> Turns:
    """Return the pair of an opening (text, language, place) and its first reply, if any."""
    asked, spoken, place = opening
    said, where = reply or ("", place)
    reason = "other_language" if spoken != language else "" if reply else "no_first_reply"
    return asked, said, where, reason


def _lima(path: Path, language: str) -> Iterator[Turns]:
    """Read conversations as lists of texts: the first two turns of each."""
    for where, row in read_rows(path):
        said = field(row, "conversations", where, list)
        if not said or not all(isinstance(text, str) for text in said):
            raise InputError(f"{where}: 'conversations' is not a list of texts: {said!r:.80}")
        yield said[0], said[1] if len(said) > 1 else "", where, ""


def _dolly(path: Path, language: str) -> Iterator[Turns]:
    """Read `instruction`, `context` and `response`, or a rendered `prompt` and its `answer`."""
    for where, row in read_rows(path):
        if "prompt" in row:
            asked = field(row, "prompt", where)
            found = _RENDERED.search(asked)
            asked = _INPUT.sub("\n\n", found[1]) if found else asked
            yield asked.strip(), field(row, "answer", where), where, ""
        else:
            context = field(row, "context", where) if row.get("context") else ""
            asked = _joined(field(row, "instruction", where), context)
            yield asked, field(row, "response", where), where, ""


def _self_instruct(path: Path, language: str) -> Iterator[Turns]:
    """Read a task's instruction with each of its instances."""
    for where, row in read_rows(path):
        for instance in field(row, "instances", where, list):
            asked = _joined(field(row, "instruction", where), field(instance, "input", where))
            yield asked, field(instance, "output", where), where, ""


def _joined(asked: str, given: str) -> str:
    return f"{asked}\n\n{given}" if given.strip() else asked


def _pairs(path: Path, language: str) -> Iterator[Turns]:
    for where, row in read_rows(path):
        asked, said, reason = first_exchange(row, where)
        yield asked, said, where, reason


_SEEDS: dict[SeedKind, tuple[Callable[[Path, str], Iterator[Turns]], str]] = {
    "oasst": (_oasst, "Apache-2.0"),
    "lima": (_lima, "CC-BY-NC-SA"),
    "dolly": (_dolly, "CC-BY-SA-3.0"),
    "self_instruct": (_self_instruct, "Apache-2.0"),
    "pairs": (_pairs, ""),
}
"""Reader of each data set, and its licence as it states it; LIMA's is for non-commercial use."""


class GivenPairsConfig(Config):
    """Files to read, and values for rows that lack them."""

    shape: Shape | None = None
    """Shape of the rows. Default: each row's own, by its keys."""
    tag: Literal["seed", "web"] = "web"
    """Origin of the pairs, which selects the tag in their prompts: human-written seeds or web
    text."""
    collection: str = "given"
    """Collection name that rows get."""
    licence: str = ""
    """Licence that rows get."""
    own_ids: bool = True
    """Use the ids of the rows. A pair without an id is named by a hash of its texts."""


@stage(version=3, writes=Pair, plan=lambda config, folder: sum_estimates([folder]))
def read_pairs(ctx: Context, config: GivenPairsConfig, *, folder: Artifact) -> Iterator[Pair]:
    """Read pairs: rows of `instruction` and `response`, or the first exchange of any shape.

    Other columns of a pair (`id`, `tag`, `segment_id`, `rating`, ...) are read if present. Dropped:
    `empty` (either text), `repeated` (the same two texts), and conversations that do not begin with
    the text of a user and that of an assistant (`no_exchange`, `not_text`, `tool_calls`).
    """
    seen: set[str] = set()
    ids: set[str] = set()
    for path in row_files(folder.path):
        for where, row in ctx.track(read_rows(path), "reading"):
            *texts, reason = first_exchange(row, where, config.shape)
            pair = _given(config, row, texts, where, origin_of(path, where))
            name = pair_id(*texts)
            is_empty = not all(text.strip() for text in texts)
            if reason or is_empty or name in seen:
                ctx.drop(pair, reason or ("empty" if is_empty else "repeated"))
                continue
            if pair.id in ids:
                raise InputError(
                    f"{where}: another pair has the id {pair.id!r:.60}, too; make them differ, or "
                    "set own_ids = false (of given pairs) to name pairs by their texts"
                )
            seen.add(name)
            ids.add(pair.id)
            yield pair


def _given(
    config: GivenPairsConfig, row: dict[str, Any], texts: list[str], where: str, origin: str
) -> Pair:
    own = row.get("id") if config.own_ids else None
    is_own = isinstance(own, str | int) and str(own).strip()
    known = {name: value for name, value in row.items() if name in Pair.model_fields and value}
    known |= {"id": str(own) if is_own else pair_id(*texts)}
    known |= {"instruction": texts[0], "response": texts[1]}
    given = config.model_dump(include={"tag", "collection", "licence"})
    try:
        return Pair.model_validate({"origin": origin, **given, **known})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {name} = {first['input']!r:.60}: {first['msg']}") from None


class LinesConfig(Config):
    """Name of the file."""

    file: str


@stage(version=1, writes=FOLDER, plan=lambda config, rows: Estimate(seconds=1))
def write_lines(ctx: Context, config: LinesConfig, *, rows: Artifact) -> None:
    """Write rows as JSON lines, for tools that read no Parquet; `read_pairs` reads pairs back."""
    with (ctx.out / config.file).open("wb") as stream:
        for batch in ctx.track(rows.batches(), "writing", unit="batches"):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                stream.write(to_json(row) + b"\n")
    ctx.count("rows", rows.num_rows)
