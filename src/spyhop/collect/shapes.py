"""The shapes of rows that people have, as `docs/rows.md` lists them: a row becomes a conversation.

A row of a shape of texts may lack its response where prompts are read. A `system` (or
`system_prompt`) column is the system message.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from spyhop.schema import InputError, Message, Role

Shape = Literal[
    "messages", "sharegpt", "batch", "preference", "alpaca", "dolly", "openorca", "question_answer",
    "prompt_completion",
]  # fmt: skip
TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call")
_ROLES: dict[object, Role] = {
    **{role: role for role in get_args(Role)},
    "developer": "system",
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot"), "assistant"),
}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys of a turn that hold the assistant's thought."""
_WEIGHTS = ("weight", "train")
"""Keys of a turn that say whether it has a loss: OpenAI writes `weight`, Axolotl `train`."""
_TURN_KEYS = frozenset(("role", "from", "content", "value", *_WEIGHTS, *_THOUGHTS))
_SYSTEM = ("system", "system_prompt")
_PARTS = ("text", "input_text", "output_text")


class _Keys(NamedTuple):
    """Keys of a shape with a text in each column."""

    prompt: tuple[str, ...]
    more: tuple[str, ...]
    """The text below the prompt, above a question."""
    response: tuple[str, ...]


_TEXTS: dict[Shape, _Keys] = {
    "alpaca": _Keys(("instruction",), ("input",), ("output",)),
    "dolly": _Keys(("instruction",), ("context",), ("response",)),
    "openorca": _Keys(("question",), (), ("response",)),
    "question_answer": _Keys(
        ("question", "query"), ("context",), ("answer", "response", "answers")
    ),
    "prompt_completion": _Keys(("prompt",), (), ("completion", "response")),
}
TEXT_SHAPES = frozenset(_TEXTS)
"""Shapes whose response is a text in a column of its own."""
_LISTED = ("messages", "conversations", "conversation", "body", "chosen", "rejected")
COLUMNS = frozenset((*_LISTED, "input", "preferred_output", *_SYSTEM)).union(
    *(name for keys in _TEXTS.values() for name in keys)
)
"""Every key that a shape gives a meaning."""


class ToolCalls(InputError):
    """A row has tool calls, which are neither sent nor trained on."""


class NotText(InputError):
    """A turn's content has parts that are not text, or is missing."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row as turns."""

    shape: Shape
    turns: list[Message]
    used: frozenset[str]
    """Keys of the row that were read."""
    response: bool = False
    """Whether the last turn is a response in a column of its own."""
    target: str = ""
    """The gold answer of a row of question and answer."""


def shape_of(row: Mapping[str, Any], where: str, needs_response: bool = False) -> Shape:
    """Return the shape of a row by its keys."""
    has = {key for key, value in row.items() if value is not None}
    if "messages" in has:
        return "messages"
    if {"conversations", "conversation"} & has:
        return "sharegpt"
    if isinstance(row.get("body"), Mapping) and "messages" in row["body"]:
        return "batch"
    if {"chosen", "rejected"} <= has or "preferred_output" in has:
        return "preference"
    if {"question", "system_prompt"} <= has:
        return "openorca"
    asked = [shape for shape, keys in _TEXTS.items() if has.intersection(keys.prompt)]
    answered = [shape for shape in asked if has.intersection(_TEXTS[shape].response)]
    whole = [shape for shape in asked if has.issuperset(_TEXTS[shape].more)]
    if found := answered if needs_response else [*answered, *whole, *asked]:
        return found[0]
    keys = ", ".join(row) or "nothing"
    missing = "'response'" if needs_response and asked else "messages"
    raise InputError(
        f"{where}: no {missing}; it has {keys:.80}; write "
        '"messages": [{"role": "user", "content": "..."}], or use a shape of docs/rows.md'
    )


def conversation(
    row: Mapping[str, Any], where: str, shape: Shape | None = None, needs_response: bool = False
) -> Conversation:
    """Return a row of that shape, or of the one that its keys show, as a conversation.

    A turn that calls a tool, or is one's output, raises `ToolCalls`; a bad value an `InputError`.
    """
    shape = shape or shape_of(row, where, needs_response)
    reader = _Reader(row, where)
    if shape in TEXT_SHAPES:
        turns, has_response, target = reader.texts(shape)
    else:
        turns, has_response, target = reader.listed(shape), shape == "preference", ""
    return Conversation(shape, turns, frozenset(reader.used), has_response, target)


def rejected_turns(row: Mapping[str, Any], where: str) -> list[Message]:
    """Return a row of the shape `preference` with its rejected response."""
    if shape_of(row, where, needs_response=True) != "preference":
        keys = ", ".join(row)
        raise InputError(f"{where}: no preference: it needs chosen and rejected; it has {keys:.80}")
    return _Reader(row, where).listed("preference", is_rejected=True)


def first_exchange(
    row: Mapping[str, Any], where: str, shape: Shape | None = None
) -> tuple[str, str, str]:
    """Return the first instruction and response of a row, without a system message.

    The third text is the reason why there is no such pair, or empty: `no_exchange`, `not_text` or
    `tool_calls`.
    """
    try:
        turns = conversation(row, where, shape, needs_response=True).turns
    except ToolCalls:
        return "", "", "tool_calls"
    except NotText:
        return "", "", "not_text"
    said = [turn for turn in turns if turn.role != "system"][:2]
    if [turn.role for turn in said] != ["user", "assistant"]:
        return "", "", "no_exchange"
    return said[0].content, said[1].content, ""


class _Reader:
    """Reads the columns of a row, and remembers which."""

    def __init__(self, row: Mapping[str, Any], where: str) -> None:
        self._row, self._where = row, where
        self.used: set[str] = set()

    def listed(self, shape: Shape, *, is_rejected: bool = False) -> list[Message]:
        """Return the turns of a shape that lists them; of a preference, one of the two sides."""
        row = self._row
        if shape == "messages":
            return self._turns("messages")
        if shape == "sharegpt":
            key = self._present(("conversations", "conversation")) or "conversations"
            return [*self._system(), *self._turns(key)]
        if shape == "batch":
            self.used.update(("body", "custom_id", "method", "url"))
            return self._inner("body")
        if row.get("preferred_output") is not None:
            self.used.update(("input", "preferred_output", "non_preferred_output"))
            key = "non_preferred_output" if is_rejected else "preferred_output"
            return [*self._inner("input"), *self._turns(key)]
        self.used.update(("chosen", "rejected"))
        key = self._present(("prompt", "question"))
        asked = self._side(key, "user") if key else []
        before = [*self._system(), *asked]
        said = self._side("rejected" if is_rejected else "chosen", "assistant")
        return said if len(said) > 1 and said[: len(before)] == before else before + said

    def texts(self, shape: Shape) -> tuple[list[Message], bool, str]:
        """Return the turns of a shape of texts, whether it has a response, and its gold answer."""
        keys = _TEXTS[shape]
        asked = self._side(self._present(keys.prompt) or keys.prompt[0], "user")
        if self._present(keys.more) and (more := self._text(keys.more[0])):
            parts = [more, asked[-1].content]
            both = parts if shape == "question_answer" else parts[::-1]
            asked[-1] = asked[-1].model_copy(update={"content": "\n\n".join(both)})
        key = self._present(keys.response)
        if not key:
            return [*self._system(), *asked], False, ""
        said = self._side(key, "assistant")
        target = said[0].content if shape == "question_answer" else ""
        return [*self._system(), *asked, *said], True, target

    def _turns(self, key: str) -> list[Message]:
        self.used.add(key)
        return turns_of(self._row.get(key), self._where, key)

    def _inner(self, key: str) -> list[Message]:
        """Return the `messages` of an object."""
        value = self._row.get(key)
        found = value.get("messages") if isinstance(value, Mapping) else value
        return turns_of(found, self._where, f"{key}.messages")

    def _system(self) -> list[Message]:
        key = self._present(_SYSTEM)
        text = self._text(key) if key else ""
        return [Message(role="system", content=text)] if text else []

    def _present(self, keys: tuple[str, ...]) -> str:
        """Return the first of these columns that has a value, or an empty text."""
        return next((key for key in keys if self._row.get(key) is not None), "")

    def _side(self, key: str, role: Role) -> list[Message]:
        """Return a text as one turn, or a list of turns."""
        value = self._row.get(key)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return self._turns(key)
        return [Message(role=role, content=self._text(key))]

    def _text(self, key: str) -> str:
        self.used.add(key)
        value = self._row.get(key)
        if key in ("answer", "answers"):
            value = value[0] if isinstance(value, list) and value else value  # of several golds
            value = str(value) if type(value) in (int, float) else value
        if not isinstance(value, str):
            raise InputError(f"{self._where}: {key} = {value!r:.60} is not text; use messages")
        return value


def turns_of(found: object, where: str, key: str) -> list[Message]:
    """Return the turns of a list; plain texts are the user's and the assistant's in turn."""
    if not isinstance(found, list):
        raise InputError(
            f"{where}: {key} = {found!r:.60} is not a list of turns; write "
            '[{"role": "user", "content": "..."}]'
        )
    if found and key != "messages" and all(isinstance(text, str) for text in found):
        roles: tuple[Role, Role] = ("user", "assistant")
        return [Message(role=roles[n % 2], content=text) for n, text in enumerate(found)]
    return [_turn(turn, f"{where}: {key}[{number}]") for number, turn in enumerate(found)]


def _turn(turn: Any, where: str) -> Message:  # noqa: ANN401 (a row from outside)
    if not isinstance(turn, Mapping):
        raise InputError(f"{where} = {turn!r:.60} is not a turn; it needs a role and a content")
    is_pair = turn.get("role") is None and turn.get("from") is not None
    role_key, content_key = ("from", "value") if is_pair else ("role", "content")
    role, content = turn.get(role_key), turn.get(content_key)
    if turn.get("tool_calls") or turn.get("function_call") or role in TOOL_ROLES:
        raise ToolCalls(f"{where}: tool calls are not supported; remove such rows")
    if not isinstance(role, str) or role not in _ROLES:
        raise InputError(f"{where}.{role_key} = {role!r:.60}: write {', '.join(get_args(Role))}")
    thoughts = [value for name in _THOUGHTS if (value := turn.get(name))]
    if thoughts and not isinstance(thoughts[0], str):
        raise InputError(f"{where}: the thought {thoughts[0]!r:.60} is not text")
    is_assistant = _ROLES[role] == "assistant"
    for name in _WEIGHTS if is_assistant else ():
        if turn.get(name) not in (None, 0, 1):
            raise InputError(f"{where}.{name} = {turn[name]!r:.60}: write 0 or 1")
    return Message(
        role=_ROLES[role],
        content=_content(content, f"{where}.{content_key}"),
        reasoning=thoughts[0] if thoughts and is_assistant else None,
        is_trained=False if any(turn.get(name) == 0 for name in _WEIGHTS) else None,
    )


def _content(content: object, where: str) -> str:
    """Return text, or the text of a list of parts that all are text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) and content else [None]
    texts = [
        part.get("text") if isinstance(part, Mapping) and part.get("type") in _PARTS else None
        for part in parts
    ]
    if not all(isinstance(text, str) for text in texts):
        raise NotText(f"{where} = {content!r:.60} is not text; only text can be asked")
    return "".join(str(text) for text in texts)


def unused_keys(row: Mapping[str, Any], used: frozenset[str]) -> set[str]:
    """Return the keys with a value that were not read; of turns as `messages[].key`."""
    found = {key for key, value in row.items() if key not in used and value is not None}
    for key in used & {"messages", "conversations", "conversation"}:
        for turn in filter(lambda turn: isinstance(turn, Mapping), row[key]):
            extra = turn.keys() - _TURN_KEYS
            found |= {f"{key}[].{name}" for name in extra if turn[name] is not None}
    return found
