"""Ready answers: data one already has becomes training rows, and costs nothing.

OpenOrca and SlimOrca as published, pairs of a preferred and another answer (the preferred one is
taken), and the outputs of OpenAI's batch interface beside the requests that they answer.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from spyhop.schema import Answer, Config, InputError, Message, prompt_turns
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, json_lines, matching
from spyhop.store.rows import read_rows

ReadyKind = Literal["openorca", "slimorca", "preferred", "openai_batch"]
COLLECTIONS = {"cot": "cot", "flan": "flan2021", "niv": "niv2", "t0": "t0"}
"""What the ids of OpenOrca begin with, and our names of these collections."""
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


class ReadyConfig(Config):
    """Files of existing answers, and their format."""

    kind: ReadyKind
    """Format of the answers."""
    pattern: str = "*"
    """Glob of the files to read, if the path is a folder."""
    requests: str = "*requests*.jsonl"
    """Only for `openai_batch`: the files of requests; `pattern` then names those of outputs."""
    collection: str = "ready"
    """Name of the collection, where the rows' ids do not tell it."""
    model: str = "recorded"
    """Who answered, where the rows do not tell it."""
    licence: str = ""
    """Licence of the rows; empty is unknown."""


@stage(version=2, writes=Answer, plan=lambda config, folder: sum_estimates([folder]))
def read_answers(ctx: Context, config: ReadyConfig, *, folder: Artifact) -> Iterator[Answer]:
    """Read conversations that end with an answer; one without is a row with an error.

    A system message's id is the beginning of its text's hash, `empty` where there is none. The
    same prompt answered twice is kept once; the rest is dropped as `repeated`.

    Raises:
        InputError: Naming the file, the line and what is wrong with it.
    """
    seen: set[str] = set()
    for row in _READERS[config.kind](folder.path, config):
        if row.id in seen:
            ctx.drop(row, "repeated")
            continue
        seen.add(row.id)
        ctx.count(f"collection/{row.collection}")
        ctx.count(f"system_message/{row.system_id}")
        ctx.count(f"ending/{row.ending}")
        yield row


def _rows(folder: Path, config: ReadyConfig) -> Iterator[tuple[str, str, Any]]:
    """Yield where each row stands, for errors and for its origin, and the row."""
    for path in matching(folder, config.pattern):
        for number, (where, row) in enumerate(read_rows(path), 1):
            yield where, f"{path.name}:{number}", row


def _openorca(folder: Path, config: ReadyConfig) -> Iterator[Answer]:
    for where, origin, row in _rows(folder, config):
        system = field(row, "system_prompt", where, (str, type(None))) or ""
        turns = prompt_turns(field(row, "question", where), system)
        name = str(row.get("id", "")).split(".")[0]
        response = field(row, "response", where, (str, type(None)))
        collection = COLLECTIONS.get(name, config.collection)
        yield _answer(config, turns, response, origin, collection=collection)


def _slimorca(folder: Path, config: ReadyConfig) -> Iterator[Answer]:
    for where, origin, row in _rows(folder, config):
        turns = _turns(field(row, "conversations", where, list), where, "from", "value")
        yield _last_is_answer(config, turns, where, origin)


def _preferred(folder: Path, config: ReadyConfig) -> Iterator[Answer]:
    for where, origin, row in _rows(folder, config):
        turns = _turns(field(row, "input.messages", where, list), where)
        said = _turns(field(row, "preferred_output", where, list), where)
        yield _last_is_answer(config, [*turns, *said], where, origin)


def _openai_batch(folder: Path, config: ReadyConfig) -> Iterator[Answer]:
    if folder.is_file():
        raise InputError(f"{folder}: a folder is needed, with requests beside the outputs")
    asked: dict[str, list[Message]] = {}
    requests = matching(folder, config.requests)
    for path in requests:
        for where, row in json_lines(path):
            turns = _turns(field(row, "body.messages", where, list), where)
            asked[field(row, "custom_id", where)] = turns
    for path in matching(folder, config.pattern):
        if path in requests:
            continue
        for number, (where, row) in enumerate(json_lines(path), 1):
            name = field(row, "custom_id", where)
            if name not in asked:
                raise InputError(f"{where}: no request has the custom_id {name!r}")
            yield _batch_answer(config, asked[name], row, where, f"{path.name}:{number}")


def _batch_answer(
    config: ReadyConfig,
    turns: list[Message],
    row: Any,  # noqa: ANN401 (as the file has it)
    where: str,
    origin: str,
) -> Answer:
    reply = field(row, "response", where, (dict, type(None)))
    if row.get("error") or reply is None or reply.get("status_code", 200) != 200:
        said = row.get("error") or (reply or {}).get("body") or "no response"
        return _answer(config, turns, None, origin, error=f"{said!s:.200}")
    content = field(reply, "body.choices.0.message.content", where, (str, type(None)))
    usage = field(reply, "body", where, dict).get("usage") or {}
    return _answer(
        config,
        turns,
        content,
        origin,
        model=str(reply["body"].get("model") or config.model),
        finish_reason=str(reply["body"]["choices"][0].get("finish_reason") or "stop"),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        response_tokens=usage.get("completion_tokens") or 0,
    )


_READERS: dict[ReadyKind, Callable[[Path, ReadyConfig], Iterator[Answer]]] = {
    "openorca": _openorca,
    "slimorca": _slimorca,
    "preferred": _preferred,
    "openai_batch": _openai_batch,
}


def _turns(
    given: Sequence[object], where: str, role: str = "role", content: str = "content"
) -> list[Message]:
    turns = []
    for number, turn in enumerate(given, 1):
        at = f"{where}, turn {number}"
        who = field(turn, role, at)
        if who not in _ROLES:
            raise InputError(f"{at}: {role} = {who!r} is unknown; known: {', '.join(_ROLES)}")
        said = field(turn, content, at)
        if said or _ROLES[who] != "system":
            turns.append(Message(role=_ROLES[who], content=said))
    return turns


def _last_is_answer(config: ReadyConfig, turns: list[Message], where: str, origin: str) -> Answer:
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise InputError(f"{where}: the conversation does not end with an answer")
    return _answer(config, turns[:-1], turns[-1].content, origin)


def _answer(
    config: ReadyConfig,
    turns: list[Message],
    response: str | None,
    origin: str,
    *,
    collection: str = "",
    **known: Any,  # noqa: ANN401 (fields of the row)
) -> Answer:
    system = turns[0].content if turns[0].role == "system" else ""
    collection = collection or config.collection
    query_id = row_id(collection, *(turn.content for turn in turns if turn.role != "system"))
    values = {"model": config.model, "finish_reason": "stop", "error": None, **known}
    if response is None or not response.strip():
        values |= {"finish_reason": "error", "error": values["error"] or "empty response"}
    else:
        turns = [*turns, Message(role="assistant", content=response)]
    return Answer(
        id=row_id(query_id, system),
        query_id=query_id,
        collection=collection,
        task=collection,
        system_id=row_id(system)[:8] if system else "empty",
        messages=turns,
        licence=config.licence,
        origin=origin,
        **values,
    )
