"""The beginning that prompts of one stage have in common: providers cache it."""

from collections.abc import Iterable, Sequence
from os.path import commonprefix

from spyhop.models.calls import Request
from spyhop.models.wire import SharedPart
from spyhop.schema import Message


def shared_parts(requests: Iterable[Request]) -> dict[str, SharedPart]:
    """Return the part that prompts with the same first message share, by that message.

    Prompts without a system message are one group, by the empty text. The part ends after a whole
    message, or after a line.
    """
    groups: dict[str, list[list[Message]]] = {}
    for request in requests:
        groups.setdefault(group_of(request), []).append(request.messages)
    return {name: _shared(group) for name, group in groups.items() if len(group) > 1}


def group_of(request: Request) -> str:
    """Return the system message of a prompt; empty without one."""
    first = request.messages[:1]
    return first[0].content if first and first[0].role == "system" else ""


def _shared(group: Sequence[list[Message]]) -> SharedPart:
    first, turns = group[0], 0
    while all(len(each) > turns and each[turns] == first[turns] for each in group):
        turns += 1
    texts = [each[turns].content if len(each) > turns else "" for each in group]
    start = commonprefix([min(texts), max(texts)])  # noqa: RUF071 (texts, no paths)
    return SharedPart(turns, start.rfind("\n") + 1)
