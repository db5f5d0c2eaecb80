"""Ready answers: rows of any shape, and outputs of OpenAI's batch interface with their requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from spyhop.collect.reading import UnusedKeys
from spyhop.collect.shapes import COLUMNS, TEXT_SHAPES, Shape, ToolCalls, conversation, turns_of
from spyhop.schema import Answer, Config, InputError, Message
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, matching
from spyhop.store.rows import read_rows, row_files

COLLECTIONS = {"cot": "cot", "flan": "flan2021", "niv": "niv2", "t0": "t0"}
"""What the ids of OpenOrca begin with, and our names of these collections."""
META = (*COLUMNS, "id", "model", "licence", "license")
"""Keys that mean something here."""


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
    read = _openai_batch if config.shape == "openai_batch" else _rows
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


def _rows(ctx: Context, folder: Path, config: ReadyConfig) -> Iterator[Answer]:
    unused = UnusedKeys(ctx, folder.name, META)
    shape = None if config.shape == "openai_batch" else config.shape
    files = row_files(folder, config.pattern)
    for path in files:
        for number, (where, row) in enumerate(read_rows(path, META), 1):
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
