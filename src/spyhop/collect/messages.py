"""Rows of your own: files of `messages`, as JSONL or Parquet; prompts, or whole conversations."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
from pydantic_core import from_json

from spyhop.schema import Answer, Config, InputError, Message, Prompt, Role
from spyhop.stage import Context, Estimate, pooled, stage
from spyhop.store import Artifact, row_id
from spyhop.store.files import json_lines, matching, parquet_batches, parquet_head

PARQUET = ".parquet"
PACKED = ("", ".gz", ".bz2", ".zst")
SUFFIXES = (*(f"{form}{packed}" for form in (".jsonl", ".json") for packed in PACKED), PARQUET)
KNOWN = f".jsonl, .json (also with {', '.join(PACKED[1:])}), {PARQUET}"
MESSAGES, PROMPT, RESPONSE = "messages", "prompt", "response"
READ = (MESSAGES, PROMPT, "id", "target", "task", "collection")
"""Columns that mean something here; others are passed over."""
ANSWERED = (*READ, RESPONSE, "model", "finish_reason", "error", "licence")
"""The same, of rows that are answered already."""
ROLES = get_args(Role)
UNKNOWN = "unknown"


class MessagesConfig(Config):
    """What the rows may hold."""

    reserved: tuple[str, ...] = ()
    """Columns that a later stage adds beside those of the file, so that no row may have them."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it stands in the file."""

    place: str
    """File and line, for messages."""
    values: dict[str, Any]


def plan_messages(config: MessagesConfig, file: Estimate) -> Estimate:
    """One prompt per line."""
    return pooled([file])


@stage(version=1, writes=Prompt, plan=plan_messages)
def read_prompts(ctx: Context, config: MessagesConfig, *, file: Artifact) -> Iterator[Prompt]:
    """Read prompts: rows with `messages` (role and content), or with the text of one `prompt`.

    `id` (text or a whole number), `target`, `task` and `collection` are taken where they stand; a
    row without an id is named by its messages, and where these come again by `<id>-2`, `<id>-3`,
    ... The order is that of the file; of a folder, that of the files' names. Some 100 bytes a row
    are held in memory, for the ids.

    Raises:
        InputError: Naming the file, the line, what is wrong there and what to do.
    """
    names = _Names()
    num_rows = 0
    for row in ctx.track(read_rows(file.path, READ, config.reserved), "reading"):
        num_rows += 1
        turns = turns_of(row)
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
            target=_text(row, "target"),
        )
    if not num_rows:
        raise InputError(f'{file.path}: no rows; write one {{"{MESSAGES}": [...]}} a line')


@stage(version=2, writes=Answer, plan=plan_messages)
def read_conversations(ctx: Context, config: MessagesConfig, *, file: Artifact) -> Iterator[Answer]:
    """Read rows to train on: `messages` that end with the assistant's turn.

    Rows with the text of a `prompt` and of its `response` are taken, too. A row without an id is
    named by its messages; an id that comes again (several answers to one prompt) becomes `<id>-2`,
    `<id>-3`, ... `model` (who answered), `finish_reason`, `error` and `licence` are taken where
    they stand, as `spyhop answer` writes them: a row with an `error` has no response, and is one
    that training leaves out and counts.

    Counts: `licence/<licence>` and `model/<model>`, for the rows without an error.

    Raises:
        InputError: Naming the file, the line, what is wrong there and what to do.
    """
    names = _Names()
    num_rows = 0
    for row in ctx.track(read_rows(file.path, ANSWERED, config.reserved), "reading"):
        num_rows += 1
        turns = _answered(row)
        name = names.made(_given_id(row) or _hash(turns))
        error = _text(row, "error") or None
        model = _text(row, "model") or UNKNOWN
        if error is None:
            ctx.count(f"licence/{_text(row, 'licence') or UNKNOWN}")
            ctx.count(f"model/{model}")
        system = turns[0].content if turns[0].role == "system" else ""
        yield Answer(
            id=name,
            query_id=name,
            collection=_text(row, "collection") or "rows",
            task=_text(row, "task") or "rows",
            system_id=row_id(system)[:8] if system else "none",
            messages=turns,
            target=_text(row, "target"),
            model=model,
            finish_reason=_text(row, "finish_reason") or ("error" if error else "stop"),
            error=error,
        )
    if not num_rows:
        raise InputError(f'{file.path}: no rows; write one {{"{MESSAGES}": [...]}} a line')


def prompt_files(path: Path) -> list[Path]:
    """Return the files of prompts: the path itself, or all in the folder that are named as such.

    Raises:
        InputError: If there is none, or it is named as something else.
    """
    kept = [each for each in matching(path, "*") if each.name.endswith(SUFFIXES)]
    if not kept and path.is_dir():
        raise InputError(f"{path}: the folder holds no file that ends in one of {KNOWN}")
    if not kept:
        raise InputError(f"{path}: its name must end in one of {KNOWN}")
    return kept


def read_rows(
    path: Path, columns: Sequence[str] | None = None, reserved: Sequence[str] = ()
) -> Iterator[RawRow]:
    """Yield the rows of a file or folder in order, a batch at a time.

    Args:
        path: The file or folder.
        columns: Of a Parquet file only these are read; all by default.
        reserved: Names that no column may have.

    Raises:
        InputError: If a row or file cannot be read, or has a reserved column.
    """
    taken = frozenset(reserved)
    for file in prompt_files(path):
        if file.name.endswith(PARQUET):
            yield from _parquet_rows(file, columns, taken)
        else:
            yield from _json_rows(file, taken)


def prompt_schema(file: Path) -> pa.Schema:
    """Return the schema of a Parquet file of prompts.

    Raises:
        InputError: If it is no Parquet file, or has neither `messages` nor `prompt`.
    """
    found = parquet_head(file).schema.to_arrow_schema()
    if not {MESSAGES, PROMPT} & set(found.names):
        raise InputError(
            f"{file}: no column {MESSAGES!r} or {PROMPT!r}; it has {', '.join(found.names)!s:.120}"
        )
    return found


def turns_of(row: RawRow) -> list[Message]:
    """Return the turns of a row's prompt.

    Raises:
        InputError: If there is nothing to answer, or a turn is not a role and a text.
    """
    found = _listed(row)
    if not found:
        raise InputError(f"{row.place}: {MESSAGES} is empty; it needs at least one turn to answer")
    turns = [_turn(row.place, number, turn) for number, turn in enumerate(found)]
    if turns[-1].role == "assistant":
        raise InputError(
            f"{row.place}: the last turn is the assistant's ({turns[-1].content!r:.60}), so there "
            "is nothing to answer; leave that turn out"
        )
    return turns


def _answered(row: RawRow) -> list[Message]:
    """Return the turns of a conversation; one that failed may lack its last."""
    found = _listed(row)
    response = row.values.get(RESPONSE)
    if row.values.get(MESSAGES) is None and response is not None:
        found = [*found, {"role": "assistant", "content": response}]
    turns = [_turn(row.place, number, turn) for number, turn in enumerate(found)]
    if row.values.get("error"):
        return turns
    if len(turns) < 2 or turns[-1].role != "assistant":
        last = f", the last one the {turns[-1].role}'s ({turns[-1].content!r:.60})" if turns else ""
        raise InputError(
            f"{row.place}: {len(turns)} turns{last}: there is nothing to train on; {MESSAGES} must "
            "end with the assistant's answer to another turn"
        )
    return turns


def _listed(row: RawRow) -> list[Any]:
    found, text = row.values.get(MESSAGES), row.values.get(PROMPT)
    if found is None and text is None:
        keys = ", ".join(row.values) or "nothing"
        raise InputError(
            f'{row.place}: no {MESSAGES}; it has {keys:.80}; write "{MESSAGES}": '
            '[{"role": "user", "content": "..."}] or "prompt": "..."'
        )
    if found is None:
        if not isinstance(text, str):
            raise InputError(f"{row.place}: {PROMPT} = {text!r:.60} is not text; use {MESSAGES}")
        return [{"role": "user", "content": text}]
    if not isinstance(found, list):
        raise InputError(
            f"{row.place}: {MESSAGES} = {found!r:.60} is not a list of turns; write "
            '[{"role": "user", "content": "..."}]'
        )
    return found


def _turn(place: str, number: int, turn: Any) -> Message:  # noqa: ANN401 (a row from outside)
    where = f"{place}: {MESSAGES}[{number}]"
    if not isinstance(turn, Mapping):
        raise InputError(f"{where} = {turn!r:.60} is not a turn; it needs a role and a content")
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        raise InputError(f"{where}.role = {role!r:.60}: write {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise InputError(f"{where}.content = {content!r:.60} is not text; only text can be asked")
    return Message(role=role, content=content)


def _given_id(row: RawRow) -> str:
    """Return the id that the row brings; empty where it brings none."""
    value = row.values.get("id")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(
            f"{row.place}: id = {value!r:.60} is neither text nor a whole number; leave it out, "
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
                f"{place}: id = {name!r:.60} stands in an earlier row, too; ids must differ; leave "
                "them out, and rows are named by their messages"
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


def _parquet_rows(
    file: Path, columns: Sequence[str] | None, reserved: frozenset[str]
) -> Iterator[RawRow]:
    _refuse(file, prompt_schema(file).names, reserved)
    number = 0
    for batch in parquet_batches(file, columns):
        try:
            rows = batch.to_pylist(maps_as_pydicts="strict")
        except (UnicodeDecodeError, ValueError, KeyError) as error:
            where = f"{file}: rows {number + 1} to {number + batch.num_rows}"
            raise InputError(f"{where}: a value cannot be read ({error!s:.120})") from None
        for values in rows:
            number += 1
            yield RawRow(f"{file}: row {number}", values)


def _json_rows(file: Path, reserved: frozenset[str]) -> Iterator[RawRow]:
    for place, values in json_lines(file, ":", from_json):
        if not isinstance(values, dict):
            raise InputError(
                f'{place}: {values!r:.60} is not a row; write one {{"{MESSAGES}": [...]}} a line'
            )
        _refuse(place, values, reserved)
        yield RawRow(place, values)


def _refuse(place: object, columns: Iterator[str] | Sequence[str] | Mapping[str, Any],
            reserved: frozenset[str]) -> None:  # fmt: skip
    if clash := sorted(reserved.intersection(columns)):
        raise InputError(
            f"{place}: the column {clash[0]!r} is one that the answers bring; rename it, "
            "or leave it out"
        )
