"""Read your own rows, of any shape in `shapes`: prompts to answer or conversations to train on."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spyhop.collect.reading import UnusedKeys
from spyhop.collect.shapes import (
    COLUMNS,
    Conversation,
    Shape,
    ToolCalls,
    conversation,
    rejected_turns,
    unused_keys,
)
from spyhop.schema import Answer, Config, InputError, Message, Preference, Prompt
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import parquet_head
from spyhop.store.rows import PARQUET, kind_of, read_rows, row_files

READ = (*COLUMNS, "id", "target", "task", "collection")
"""Keys that mean something here; others are counted and ignored."""
ANSWERED = (*READ, "model", "finish_reason", "error", "licence", "license")
"""The same, of rows that are answered already."""
PAIRED = (*COLUMNS, "id", "chosen_origin", "rejected_origin", "reason", "licence", "license")
"""The same, of preferences."""
UNKNOWN = "unknown"
CHECKED_ROWS = 10_000
"""Rows of a file that a plan reads, so that bad ones are refused before anything runs."""


class MessagesConfig(Config):
    """What the rows may hold."""

    shape: Shape | None = None
    """Shape of the rows. Default: each row's own, by its keys."""
    reserved: tuple[str, ...] = ()
    """Columns that a later stage adds beside those of the file, so that no row may have them."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it."""

    place: str
    """File and line, for messages."""
    values: dict[str, Any]


@stage(version=3, writes=Prompt, plan=lambda config, file: sum_estimates([file]))
def read_prompts(ctx: Context, config: MessagesConfig, *, file: Artifact) -> Iterator[Prompt]:
    """Read prompts: rows of any shape; a response in a column of its own is dropped.

    `id` (text or a whole number), `target`, `task` and `collection` are read; the answer of a row
    of question and answer is its target. A row without an id is named by its messages; a second
    row with the same messages is `<id>-2`. The order is that of the file; of a folder, that of the
    files' names. Ids take some 100 bytes of memory a row.

    Counts: `shape/<shape>`; `unused/<key>`, the rows with a key that has no meaning here.
    """
    names, seen = _Names(), _RowCounts(ctx, file.path, READ)
    for row in ctx.track(raw_rows(file.path, READ, config.reserved), "reading"):
        found = conversation(row.values, row.place, config.shape)
        seen.add(row, found)
        turns = _prompt(row, found)
        given = _given_id(row)
        name = names.given(given, row.place) if given else names.made(_hash(turns))
        has_system = any(turn.role == "system" for turn in turns)
        yield Prompt(
            id=name,
            query_id=name,
            collection=_text(row, "collection") or "prompts",
            task=_text(row, "task") or "prompts",
            system_id="given" if has_system else "none",
            messages=turns,
            target=_text(row, "target") or found.target,
        )
    seen.report()


def plan_conversations(config: MessagesConfig, file: Estimate) -> Estimate:
    """Return the rows of a file, after a look at the first of them: bad ones are refused here."""
    if file.path is not None and file.path.exists():
        rows = islice(raw_rows(file.path, ANSWERED, config.reserved), CHECKED_ROWS)
        if not [_read(row, config) for row in rows]:
            raise _no_rows(file.path)
    return sum_estimates([file])


@stage(version=6, writes=Answer, plan=plan_conversations)
def read_conversations(ctx: Context, config: MessagesConfig, *, file: Artifact) -> Iterator[Answer]:
    """Read rows to train on: conversations of any shape that end with the assistant's turn.

    A row without an id is named by its messages; an id that comes again (several answers to one
    prompt) becomes `<id>-2`. `model` (who answered), `finish_reason`, `error` and `licence` (or
    `license`) are read as `spyhop answer` writes them: a row with an `error` has no response;
    training drops and counts it. Of a preference, the chosen response is read.

    A turn's `reasoning_content` (or `reasoning`, `thinking`) is its thought; `weight: 0` and
    `train: false` mean no loss. Rows with tool calls are dropped as `tool_calls`.

    Counts: `licence/<licence>` and `model/<model>`, for the rows without an error;
    `shape/<shape>`; `unused/<key>`, the rows with a key that has no meaning here.
    """
    names, seen = _Names(), _RowCounts(ctx, file.path, ANSWERED)
    for row in ctx.track(raw_rows(file.path, ANSWERED, config.reserved), "reading"):
        error = _text(row, "error") or None
        read = _read(row, config)
        if isinstance(read, ToolCalls):
            seen.num_rows += 1
            if not ctx.dropped["tool_calls"]:
                ctx.notice(f"dropped rows with tool calls, such as {read}")
            ctx.drop(json.dumps(row.values, default=str), "tool_calls")
            continue
        found, turns = read
        seen.add(row, found)
        name = names.made(_given_id(row) or _hash(turns))
        model = _text(row, "model") or UNKNOWN
        licence = _text(row, "licence") or _text(row, "license")
        if error is None:
            ctx.count(f"licence/{licence or UNKNOWN}")
            ctx.count(f"model/{model}")
        system = turns[0].content if turns and turns[0].role == "system" else ""
        yield Answer(
            id=name,
            query_id=name,
            collection=_text(row, "collection") or "rows",
            task=_text(row, "task") or "rows",
            system_id=row_id(system)[:8] if system else "none",
            messages=turns,
            target=_text(row, "target") or found.target,
            licence=licence,
            model=model,
            finish_reason=_text(row, "finish_reason") or ("error" if error else "stop"),
            error=error,
        )
    seen.report()


def plan_preferences(config: MessagesConfig, file: Estimate) -> Estimate:
    """Return the pairs of a file, after a look at the first of them."""
    if file.path is not None and file.path.exists():
        for row in islice(raw_rows(file.path, PAIRED), CHECKED_ROWS):
            _sides(row)
    return sum_estimates([file])


@stage(version=1, writes=Preference, plan=plan_preferences)
def read_preferences(
    ctx: Context, config: MessagesConfig, *, file: Artifact
) -> Iterator[Preference]:
    """Read pairs of a chosen and a rejected response to the same prompt.

    Dropped and counted: `prompts_differ`, `same` (equal responses), `tool_calls`. A pair without an
    id is named by its texts; `chosen_origin`, `rejected_origin`, `reason` and `licence` are read.
    """
    names, seen = _Names(), _RowCounts(ctx, file.path, PAIRED)
    for row in ctx.track(raw_rows(file.path, PAIRED), "reading"):
        found, chosen, rejected = _sides(row)
        if found is None or chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
            is_same = chosen[:-1] == rejected[:-1]
            reason = "tool_calls" if found is None else "same" if is_same else "prompts_differ"
            seen.num_rows += 1
            ctx.drop(json.dumps(row.values, default=str), reason)
            continue
        seen.add(row, found)
        yield Preference(
            id=names.made(_given_id(row) or _hash([*chosen, rejected[-1]])),
            messages=chosen[:-1],
            chosen=with_thought(chosen[-1]),
            rejected=with_thought(rejected[-1]),
            chosen_origin=_text(row, "chosen_origin") or UNKNOWN,
            rejected_origin=_text(row, "rejected_origin") or UNKNOWN,
            reason=_text(row, "reason"),
            licence=_text(row, "licence") or _text(row, "license"),
        )
    seen.report()


def _sides(row: RawRow) -> tuple[Conversation | None, list[Message], list[Message]]:
    """Return a pair as two conversations; neither where a turn calls a tool."""
    try:
        rejected = rejected_turns(row.values, row.place)
        found = conversation(row.values, row.place, "preference", needs_response=True)
        return found, _answered(row, found), rejected
    except ToolCalls:
        return None, [], []


def with_thought(turn: Message, thought: str = "") -> str:
    """Return a response below its thought in `<think>` tags, if there is one."""
    thought = turn.reasoning or thought
    return f"<think>\n{thought}\n</think>\n\n{turn.content}" if thought else turn.content


def raw_rows(
    path: Path, columns: Sequence[str] | None = None, reserved: Sequence[str] = ()
) -> Iterator[RawRow]:
    """Yield the rows of a file or folder in order."""
    taken = frozenset(reserved)
    wanted = None if columns is None else {*columns, *reserved}
    for file in row_files(path):
        if wanted is not None and kind_of(file) == PARQUET:
            names = parquet_head(file).schema.to_arrow_schema().names
            if not wanted.intersection(names):
                raise InputError(
                    f"{file}: no column of messages or prompts; it has {', '.join(names):.120}; "
                    "docs/rows.md lists the shapes"
                )
        for place, values in read_rows(file, wanted, ":"):
            if clash := sorted(taken.intersection(values)):
                raise InputError(
                    f"{place}: the column {clash[0]!r} is one that the answers bring; rename it, "
                    "or remove it"
                )
            yield RawRow(place, values)


class _RowCounts:
    """Counts of the rows' shapes and of their keys without a meaning."""

    def __init__(self, ctx: Context, path: Path, known: Sequence[str]) -> None:
        self._ctx = ctx
        self._path = path
        self._meta = frozenset(known) - set(COLUMNS)
        self._shapes: Counter[str] = Counter()
        self._unused = UnusedKeys(ctx, path.name, known)
        self.num_rows = 0

    def add(self, row: RawRow, found: Conversation) -> None:
        self.num_rows += 1
        if found.shape not in self._shapes:
            used = ", ".join(sorted(found.used))
            self._ctx.notice(f"{row.place}: rows of the shape {found.shape} (keys: {used})")
        self._shapes[found.shape] += 1
        self._unused.add_names(unused_keys(row.values, found.used | self._meta))

    def report(self) -> None:
        """Write the counts; refuse a file without rows."""
        if not self.num_rows:
            raise _no_rows(self._path)
        for file in row_files(self._path):
            self._unused.add_columns(file)
        for shape, num in self._shapes.items():
            self._ctx.count(f"shape/{shape}", num)
        self._unused.report()


def _no_rows(path: Path) -> InputError:
    return InputError(f'{path}: no rows; write one {{"messages": [...]}} a line')


def _read(row: RawRow, config: MessagesConfig) -> tuple[Conversation, list[Message]] | ToolCalls:
    """Return a row's conversation and the turns to train on; its tool calls where it has some."""
    error = _text(row, "error") or None
    try:
        found = conversation(row.values, row.place, config.shape, error is None)
    except ToolCalls as calls:
        return calls
    return found, found.turns if error else _answered(row, found)


def _prompt(row: RawRow, found: Conversation) -> list[Message]:
    """Return the turns to answer."""
    turns = found.turns[:-1] if found.response else found.turns
    if not turns:
        raise InputError(f"{row.place}: messages is empty; it needs at least one turn to answer")
    if turns[-1].role == "assistant":
        raise InputError(
            f"{row.place}: the last turn is the assistant's ({turns[-1].content!r:.60}), so there "
            "is nothing to answer; remove that turn"
        )
    if not any(turn.content.strip() for turn in turns if turn.role == "user"):
        raise InputError(f"{row.place}: the prompt is empty; remove the row")
    return turns


def _answered(row: RawRow, found: Conversation) -> list[Message]:
    """Return the turns of a conversation that ends with a response."""
    turns = found.turns
    if len(turns) < 2 or turns[-1].role != "assistant":
        last = f", the last one the {turns[-1].role}'s ({turns[-1].content!r:.60})" if turns else ""
        raise InputError(
            f"{row.place}: {len(turns)} turns{last}: there is nothing to train on; messages must "
            "end with the assistant's answer to another turn"
        )
    return turns


def _given_id(row: RawRow) -> str:
    """Return the id of the row, or an empty text."""
    value = row.values.get("id")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(
            f"{row.place}: id = {value!r:.60} is neither text nor an integer; remove it, "
            "and the row is named by its messages"
        )
    return str(value)


def _text(row: RawRow, name: str) -> str:
    value = row.values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(
            f"{row.place}: {name} = {value!r:.60} is not text; write it as text, or rename it"
        )
    return value


def _hash(turns: Sequence[Message]) -> str:
    return row_id("messages", json.dumps([[turn.role, turn.content] for turn in turns]))


class _Names:
    """The ids so far, as numbers of 64 bits: a billion of them collide with a chance of 3 %."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._again: dict[str, int] = {}

    def given(self, name: str, place: str) -> str:
        if not self._take(name):
            raise InputError(
                f"{place}: id = {name!r:.60} is the id of an earlier row, too; ids must differ; "
                "remove them to name rows by their messages"
            )
        return name

    def made(self, name: str) -> str:
        if self._take(name):
            return name
        num = self._again.get(name, 1) + 1
        while not self._take(f"{name}-{num}"):
            num += 1
        self._again[name] = num
        return f"{name}-{num}"

    def _take(self, name: str) -> bool:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        number = int.from_bytes(digest)
        if number in self._taken:
            return False
        self._taken.add(number)
        return True
