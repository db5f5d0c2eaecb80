"""Open Assistant's trees of messages: the first turn with the reply that people ranked first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spyhop.schema import InputError
from spyhop.store.files import field, json_lines

PROMPTER, ASSISTANT = "prompter", "assistant"


@dataclass(frozen=True, slots=True)
class Turns:
    """An instruction, its response and the place of it; or the reason why there is no pair."""

    instruction: str
    response: str
    origin: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Root:
    text: str
    language: str
    origin: str


def read_oasst(path: Path, language: str) -> Iterator[Turns]:
    """Yield one pair per tree of a file: the opening message and its reply of rank 0.

    Both forms of the published files are read: one message a line (with `parent_id`), or one tree
    a line (with `prompt` and nested `replies`). Deleted messages are passed over. A tree in another
    language, or without a reply of rank 0, is returned with its reason. The openings of a file of
    messages are held in memory; its order does not matter otherwise.

    Source: Humpback (arXiv:2308.06259), section 3.1.
    """
    roots: dict[str, _Root] = {}
    answered: set[str] = set()
    early: list[tuple[str, str, str]] = []
    for where, row in json_lines(path):
        if isinstance(row, Mapping) and "prompt" in row:
            if not field(row, "prompt", where, dict).get("deleted"):
                yield _of_tree(row, where, language)
            continue
        if row.get("deleted") if isinstance(row, Mapping) else False:
            continue
        text, parent = field(row, "text", where), field(row, "parent_id", where, (str, type(None)))
        role, origin = field(row, "role", where), _origin(path, where)
        if parent is None:
            if role != PROMPTER:
                raise InputError(f"{where}: a message without parent_id has the role {role!r}")
            name = field(row, "message_id", where)
            roots[name] = _Root(text, field(row, "lang", where), origin)
        elif role == ASSISTANT and row.get("rank") == 0:
            early.append((parent, text, origin))
    for parent, text, origin in early:
        root = roots.get(parent)
        if root is None or parent in answered:
            continue
        answered.add(parent)
        reason = "" if root.language == language else "other_language"
        yield Turns(root.text, text, origin, reason)
    for name, root in roots.items():
        if name not in answered:
            reason = "no_first_reply" if root.language == language else "other_language"
            yield Turns(root.text, "", root.origin, reason)


def _of_tree(row: Mapping[str, Any], where: str, language: str) -> Turns:
    root = field(row, "prompt", where, dict)
    text, spoken = field(root, "text", where), field(root, "lang", where)
    replies = field(root, "replies", where, list)
    first = next((each for each in replies if each.get("rank") == 0 and _counts(each)), None)
    response = "" if first is None else field(first, "text", where)
    reason = "other_language" if spoken != language else "" if first else "no_first_reply"
    return Turns(text, response, where.rsplit("/", 1)[-1], reason)


def _counts(reply: Mapping[str, Any]) -> bool:
    return reply.get("role") == ASSISTANT and not reply.get("deleted")


def _origin(path: Path, where: str) -> str:
    return f"{path.name}{where.removeprefix(str(path))}"
