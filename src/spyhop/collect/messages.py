"""Read your own rows, of any shape in `shapes`: prompts, conversations, preferences, answers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice, starmap
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from spyhop.collect.columns import UnusedKeys
from spyhop.collect.shapes import (
    COLUMNS,
    TEXT_SHAPES,
    Conversation,
    Shape,
    ToolCalls,
    conversation,
    rejected_turns,
    turns_of,
    unused_keys,
)
from spyhop.schema import Answer, Config, InputError, Message, Preference, Prompt
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, number_of, row_id
from spyhop.store.files import field, matching, parquet_head
from spyhop.store.rows import PARQUET, kind_of, read_rows, row_files

PROMPT_META = ("id", "target", "task", "collection")
"""Keys that mean something here besides those of a shape; others are counted and ignored."""
ANSWER_META = (*PROMPT_META, "model", "finish_reason", "error", "licence", "license")
"""The same, of rows that are answered already."""
PAIR_META = ("id", "chosen_origin", "rejected_origin", "reason", "licence", "license")
"""The same, of preferences."""
UNKNOWN = "unknown"
CHECKED_ROWS = 10_000
"""Rows of a file that a plan reads, so that bad ones are refused before anything runs."""
COLLECTIONS = {"cot": "cot", "flan": "flan2021", "niv": "niv2", "t0": "t0"}
"""What the ids of OpenOrca begin with, and our names of these collections."""
READY_META = (*COLUMNS, "id", "model", "licence", "license")
"""Keys that mean something in rows of ready answers."""


class MessagesConfig(Config):
    """What the rows may hold."""

    shape: Shape | None = None
    """Shape of the rows. Default: each row's own, by its keys."""
    reserved: tuple[str, ...] = ()
    """Columns that a later stage adds beside those of the file, so that no row may have them."""
    are_prompts: bool = Field(False, exclude_if=lambda value: not value)
    """Whether a training reads the prompts alone, so that rows need no response."""


class RawRow(NamedTuple):
    """A row as the file has it."""

    place: str
    """File and line, for messages."""
    values: dict[str, Any]

    def text(self, name: str) -> str:
        """Return the text in a column, empty where there is none."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"{self.place}: {name} = {value!r:.60} is not text; write it as text, or rename it"
            )
        return value or ""


@stage(version=3, writes=Prompt, plan=lambda config, file: sum_estimates([file]))
def read_prompts(ctx: Context, config: MessagesConfig, *, file: Artifact) -> Iterator[Prompt]:
    """Read prompts: rows of any shape; a response in a column of its own is dropped.

    `id` (text or a whole number), `target`, `task` and `collection` are read; the answer of a row
    of question and answer is its target. A row without an id is named by its messages; a second
    row with the same messages is `<id>-2`. The order is that of the file; of a folder, that of the
    files' names. Ids take some 100 bytes of memory a row.

    Counts: `shape/<shape>`; `unused/<key>`, the rows with a key that has no meaning here.
    """
    rows = _Rows(ctx, file, PROMPT_META, config.reserved)
    for row in rows:
        found = conversation(row.values, row.place, config.shape)
        rows.count(row, found)
        turns = _prompt(row, found)
        name = rows.name(row, turns, are_unique=True)
        has_system = any(turn.role == "system" for turn in turns)
        yield Prompt(
            id=name,
            query_id=name,
            collection=row.text("collection") or "prompts",
            task=row.text("task") or "prompts",
            system_id="given" if has_system else "none",
            messages=turns,
            target=row.text("target") or found.target,
        )


def plan_rows(config: MessagesConfig, file: Estimate, *, are_pairs: bool = False) -> Estimate:
    """Return the rows of a file, after a look at the first of them: bad ones are refused here."""
    if file.path is not None and file.path.exists():
        rows = raw_rows(file.path, PAIR_META if are_pairs else ANSWER_META, config.reserved)
        for row in islice(rows, CHECKED_ROWS):
            with suppress(ToolCalls):
                _sides(row) if are_pairs else _read(row, config)
    return sum_estimates([file])


@stage(version=6, writes=Answer, plan=plan_rows)
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
    rows = _Rows(ctx, file, ANSWER_META, config.reserved)
    for row in rows:
        error = row.text("error") or None
        try:
            found = _read(row, config)
        except ToolCalls as calls:
            if not ctx.dropped["tool_calls"]:
                ctx.notice(f"dropped rows with tool calls, such as {calls}")
            ctx.drop(json.dumps(row.values, default=str), "tool_calls")
            continue
        rows.count(row, found)
        turns = found.turns
        name = rows.name(row, turns)
        model = row.text("model") or UNKNOWN
        licence = row.text("licence") or row.text("license")
        if error is None:
            ctx.count(f"licence/{licence or UNKNOWN}")
            ctx.count(f"model/{model}")
        system = turns[0].content if turns and turns[0].role == "system" else ""
        yield Answer(
            id=name,
            query_id=name,
            collection=row.text("collection") or "rows",
            task=row.text("task") or "rows",
            system_id=row_id(system)[:8] if system else "none",
            messages=turns,
            target=row.text("target") or found.target,
            licence=licence,
            model=model,
            finish_reason=row.text("finish_reason") or ("error" if error else "stop"),
            error=error,
        )


@stage(version=1, writes=Preference, plan=partial(plan_rows, are_pairs=True))
def read_preferences(
    ctx: Context, config: MessagesConfig, *, file: Artifact
) -> Iterator[Preference]:
    """Read pairs of a chosen and a rejected response to the same prompt.

    Dropped and counted: `prompts_differ`, `same` (equal responses), `tool_calls`. A pair without an
    id is named by its texts; `chosen_origin`, `rejected_origin`, `reason` and `licence` are read.
    """
    rows = _Rows(ctx, file, PAIR_META)
    for row in rows:
        reason = "tool_calls"
        with suppress(ToolCalls):
            found, rejected = _sides(row)
            chosen, reason = found.turns, ""
            if chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
                reason = "same" if chosen == rejected else "prompts_differ"
        if reason:
            ctx.drop(json.dumps(row.values, default=str), reason)
            continue
        rows.count(row, found)
        yield Preference(
            id=rows.name(row, [*chosen, rejected[-1]]),
            messages=chosen[:-1],
            chosen=with_thought(chosen[-1]),
            rejected=with_thought(rejected[-1]),
            chosen_origin=row.text("chosen_origin") or UNKNOWN,
            rejected_origin=row.text("rejected_origin") or UNKNOWN,
            reason=row.text("reason"),
            licence=row.text("licence") or row.text("license"),
        )


def _sides(row: RawRow) -> tuple[Conversation, list[Message]]:
    """Return the conversation with the chosen response, and that with the rejected one."""
    rejected = rejected_turns(row.values, row.place)
    return _read(row, MessagesConfig(shape="preference")), rejected


def with_thought(turn: Message, thought: str = "") -> str:
    """Return a response below its thought in `<think>` tags, if there is one."""
    thought = turn.reasoning or thought
    return f"<think>\n{thought}\n</think>\n\n{turn.content}" if thought else turn.content


def raw_rows(
    path: Path, meta: Sequence[str] | None = None, reserved: Sequence[str] = ()
) -> Iterator[RawRow]:
    """Yield the rows of a file or folder in order; without any, the file is refused.

    Of Parquet, the columns of shapes, `meta` and `reserved` are read; without `meta` all of them.
    """
    wanted = None if meta is None else {*COLUMNS, *meta, *reserved}
    row = None
    for file in row_files(path):
        if wanted is not None and kind_of(file) == PARQUET:
            names = parquet_head(file).schema.to_arrow_schema().names
            if not wanted.intersection(names):
                raise InputError(
                    f"{file}: no column of messages or prompts; it has {', '.join(names):.120}; "
                    "docs/rows.md lists the shapes"
                )
        for row in starmap(RawRow, read_rows(file, wanted, ":")):
            if clash := sorted({*reserved} & row.values.keys()):
                raise InputError(
                    f"{row.place}: the column {clash[0]!r} is one that the answers bring; rename "
                    "it, or remove it"
                )
            yield row
    if row is None:
        raise InputError(f'{path}: no rows; write one {{"messages": [...]}} a line')


def _read(row: RawRow, config: MessagesConfig) -> Conversation:
    """Return a row's conversation; it ends with a response unless it has an error or needs none."""
    has_error = bool(row.text("error"))
    needs_response = not has_error and not config.are_prompts
    found = conversation(row.values, row.place, config.shape, needs_response)
    turns = found.turns
    if config.are_prompts:
        is_answered = bool(turns) and turns[-1].role == "assistant"
        _prompt(row, replace(found, response=is_answered))
        return found
    if not has_error and (len(turns) < 2 or turns[-1].role != "assistant"):
        last = f", the last one the {turns[-1].role}'s ({turns[-1].content!r:.60})" if turns else ""
        raise InputError(
            f"{row.place}: {len(turns)} turns{last}: there is nothing to train on; messages must "
            "end with the assistant's answer to another turn"
        )
    return found


def _prompt(row: RawRow, found: Conversation) -> list[Message]:
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


class _Rows:
    """The rows of a file; names them, counts their shapes and their keys without a meaning.

    Ids are kept as numbers of 64 bits: a billion of them collide with a chance of 3 %.
    """

    def __init__(
        self, ctx: Context, file: Artifact, meta: Sequence[str], reserved: Sequence[str] = ()
    ) -> None:
        self._ctx, self._path, self._meta, self._reserved = ctx, file.path, meta, reserved
        self._unused = UnusedKeys(ctx, file.path.name, (*COLUMNS, *meta))
        self._taken: set[int] = set()
        self._again: dict[str, int] = {}

    def __iter__(self) -> Iterator[RawRow]:
        yield from self._ctx.track(raw_rows(self._path, self._meta, self._reserved), "reading")
        self._unused.report(row_files(self._path))

    def count(self, row: RawRow, found: Conversation) -> None:
        """Count the shape of a row and its keys without a meaning; log a shape once."""
        if not self._ctx.counts[f"shape/{found.shape}"]:
            used = ", ".join(sorted(found.used))
            self._ctx.notice(f"{row.place}: rows of the shape {found.shape} (keys: {used})")
        self._ctx.count(f"shape/{found.shape}")
        self._unused.rows.update(unused_keys(row.values, found.used.union(self._meta)))

    def name(self, row: RawRow, turns: Sequence[Message], *, are_unique: bool = False) -> str:
        """Return a row's own id or the hash of its turns, with a number where it is taken.

        With `are_unique`, an own id that is taken is refused.
        """
        given = row.values.get("id")
        if isinstance(given, bool) or not isinstance(given, str | int | None) or given == "":
            raise InputError(
                f"{row.place}: id = {given!r:.60} is neither text nor an integer; remove it, "
                "and the row is named by its messages"
            )
        texts = [[turn.role, turn.content] for turn in turns]
        has_id = given is not None
        name = base = str(given) if has_id else row_id("messages", json.dumps(texts))
        num = self._again.get(base, 1)
        while (number := number_of(name)) in self._taken:
            if are_unique and has_id:
                raise InputError(
                    f"{row.place}: id = {name!r:.60} is the id of an earlier row, too; ids must "
                    "differ; remove them to name rows by their messages"
                )
            num += 1
            name = f"{base}-{num}"
            self._again[base] = num
        self._taken.add(number)
        return name


class ReadyConfig(Config):
    """Files of existing answers, and their format."""

    shape: Shape | Literal["openai_batch"] | None = None
    """Shape of the rows. Default: each row's own, by its keys. `openai_batch` are outputs of that
    interface, beside their requests."""
    pattern: str = "*"
    """Glob of the files to read, if the path is a folder."""
    requests: str = "*requests*.jsonl"
    """Only for `openai_batch`: the files of requests; `pattern` then names those of outputs."""
    collection: str = "ready"
    """Name of the collection, if the rows' ids do not contain it."""
    model: str = "recorded"
    """Model that answered, if the rows do not name it."""
    licence: str = ""
    """Licence of the rows; empty is unknown."""


@stage(version=4, writes=Answer, plan=lambda config, folder: sum_estimates([folder]))
def read_answers(ctx: Context, config: ReadyConfig, *, folder: Artifact) -> Iterator[Answer]:
    """Read conversations that end with an answer; one without is a row with an error.

    A prompt that is answered again is dropped as `repeated`, a row with tool calls as `tool_calls`.
    Counts: `unused/<key>`, the rows with a key that has no meaning here.
    """
    read = _openai_batch if config.shape == "openai_batch" else _ready_rows
    seen: set[str] = set()
    for row in read(ctx, folder.path, config):
        if row.id in seen:
            ctx.drop(row, "repeated")
            continue
        seen.add(row.id)
        ctx.count(f"collection/{row.collection}")
        ctx.count(f"system_message/{row.system_id}")
        ctx.count(f"ending/{row.ending}")
        yield row


def _ready_rows(ctx: Context, folder: Path, config: ReadyConfig) -> Iterator[Answer]:
    unused = UnusedKeys(ctx, folder.name, READY_META)
    shape = None if config.shape == "openai_batch" else config.shape
    files = row_files(folder, config.pattern)
    for path in files:
        for number, (where, row) in enumerate(read_rows(path, READY_META), 1):
            try:
                found = conversation(row, where, shape)
            except ToolCalls:
                ctx.drop(json.dumps(row, default=str), "tool_calls")
                continue
            unused.add(row)
            turns = [turn for turn in found.turns if turn.content or turn.role != "system"]
            is_answered = bool(turns) and turns[-1].role == "assistant"
            if (not is_answered and found.shape not in TEXT_SHAPES) or len(turns) < 1 + is_answered:
                raise InputError(f"{where}: the conversation does not end with an answer")
            name = str(row.get("id", "")).split(".")[0] if found.shape == "openorca" else ""
            yield _answer(
                config,
                turns[:-1] if is_answered else turns,
                turns[-1].content if is_answered else None,
                f"{path.name}:{number}",
                collection=COLLECTIONS.get(name, config.collection),
                model=str(row.get("model") or config.model),
                licence=str(row.get("licence") or row.get("license") or config.licence),
            )
    unused.report(files)


def _openai_batch(ctx: Context, folder: Path, config: ReadyConfig) -> Iterator[Answer]:
    if folder.is_file():
        raise InputError(f"{folder}: a folder is needed, with requests beside the outputs")
    asked: dict[str, list[Message]] = {}
    requests = matching(folder, config.requests)
    for path in requests:
        for where, row in read_rows(path):
            turns = turns_of(field(row, "body.messages", where, list), where, "body.messages")
            asked[field(row, "custom_id", where)] = turns
    for path in matching(folder, config.pattern):
        for number, (where, row) in enumerate(read_rows(path) if path not in requests else (), 1):
            name, origin = field(row, "custom_id", where), f"{path.name}:{number}"
            if name not in asked:
                raise InputError(f"{where}: no request has the custom_id {name!r}")
            reply = field(row, "response", where, (dict, type(None)))
            if row.get("error") or reply is None or reply.get("status_code", 200) != 200:
                said = row.get("error") or (reply or {}).get("body") or "no response"
                yield _answer(config, asked[name], None, origin, error=f"{said!s:.200}")
                continue
            content = field(reply, "body.choices.0.message.content", where, (str, type(None)))
            body = field(reply, "body", where, dict)
            usage = body.get("usage") or {}
            yield _answer(
                config,
                asked[name],
                content,
                origin,
                model=str(body.get("model") or config.model),
                finish_reason=str(body["choices"][0].get("finish_reason") or "stop"),
                prompt_tokens=usage.get("prompt_tokens") or 0,
                response_tokens=usage.get("completion_tokens") or 0,
            )


def _answer(
    config: ReadyConfig,
    turns: list[Message],
    response: str | None,
    origin: str,
    **known: Any,  # noqa: ANN401 (fields of the row)
) -> Answer:
    """Return a row, of which `known` are further fields; without a text it has an error."""
    system = turns[0].content if turns[0].role == "system" else ""
    collection = known.pop("collection", config.collection)
    query_id = row_id(collection, *(turn.content for turn in turns if turn.role != "system"))
    values = {"model": config.model, "licence": config.licence, "finish_reason": "stop", **known}
    if response is None or not response.strip():
        values |= {"finish_reason": "error", "error": known.get("error", "empty response")}
    else:
        turns = [*turns, Message(role="assistant", content=response)]
    return Answer(
        id=row_id(query_id, system),
        query_id=query_id,
        collection=collection,
        task=collection,
        system_id=row_id(system)[:8] if system else "empty",
        messages=turns,
        origin=origin,
        **values,
    )
