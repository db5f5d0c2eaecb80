"""The shapes of rows that people have: one row of any of them becomes a conversation.

| shape | keys |
|---|---|
| `messages` | `messages`: turns of `role` and `content` (OpenAI, TRL) |
| `sharegpt` | `conversations` (or `conversation`): turns of `from` and `value`, or plain texts |
| `batch` | `body.messages` (requests of batch interfaces) |
| `preference` | `chosen`, `rejected` and perhaps `prompt`; or `input` and `preferred_output` |
| `alpaca` | `instruction`, `input`, `output` |
| `dolly` | `instruction`, `context`, `response` |
| `openorca` | `system_prompt`, `question`, `response` |
| `question_answer` | `question` (or `query`), `context`, `answer` (or `response`) |
| `prompt_completion` | `prompt` and `completion` (or `response`): texts, or turns |

A row of the last four may lack its response where prompts are read. A `system` (or `system_prompt`)
column is the system message.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from spyhop.schema import InputError, Message, Role

Shape = Literal[
    "messages",
    "sharegpt",
    "batch",
    "preference",
    "alpaca",
    "dolly",
    "openorca",
    "question_answer",
    "prompt_completion",
]
SHAPES: tuple[Shape, ...] = get_args(Shape)
TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call")
_ROLES: dict[object, Role] = {role: role for role in get_args(Role)} | {
    "developer": "system",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys of a turn that hold the assistant's thought."""
_TURN_KEYS = frozenset(("role", "from", "content", "value", "weight", "train", *_THOUGHTS))
_WEIGHTS = ("weight", "train")
"""Keys of a turn that say whether it has a loss: OpenAI writes `weight`, Axolotl `train`."""
_SYSTEM = ("system", "system_prompt")
_PARTS = ("text", "input_text", "output_text")

_PROMPTS: dict[Shape, tuple[tuple[str, ...], str]] = {
    "alpaca": (("instruction",), "input"),
    "dolly": (("instruction",), "context"),
    "openorca": (("question",), ""),
    "question_answer": (("question", "query"), "context"),
    "prompt_completion": (("prompt",), ""),
}
"""Keys of the prompt, and the key of the text below it (above a question)."""
_RESPONSES: dict[Shape, tuple[str, ...]] = {
    "alpaca": ("output",),
    "dolly": ("response",),
    "openorca": ("response",),
    "question_answer": ("answer", "response", "answers"),
    "prompt_completion": ("completion", "response"),
}
TEXT_SHAPES = frozenset(_PROMPTS)
"""Shapes whose response is a text in a column of its own."""
COLUMNS = (
    "messages",
    "conversations",
    "conversation",
    "body",
    "chosen",
    "rejected",
    "input",
    "preferred_output",
    *_SYSTEM,
    *dict.fromkeys(key for keys, more in _PROMPTS.values() for key in (*keys, more) if key),
    *dict.fromkeys(key for keys in _RESPONSES.values() for key in keys),
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
    for is_whole in (True, False):
        for shape, (prompts, more) in _PROMPTS.items():
            responses = has.intersection(_RESPONSES[shape])
            is_known = bool(responses) or (not is_whole and not needs_response)
            if has.intersection(prompts) and is_known and (responses or not more or more in has):
                return shape
    if not needs_response and "instruction" in has:
        return "alpaca"
    if not needs_response and {"question", "query"} & has:
        return "question_answer"
    keys = ", ".join(row) or "nothing"
    is_asked = any(has.intersection(prompts) for prompts, _ in _PROMPTS.values())
    missing = "'response'" if needs_response and is_asked else "messages"
    raise InputError(
        f"{where}: no {missing}; it has {keys:.80}; write "
        '"messages": [{"role": "user", "content": "..."}], or use a shape of docs/rows.md'
    )


def conversation(
    row: Mapping[str, Any], where: str, shape: Shape | None = None, needs_response: bool = False
) -> Conversation:
    """Return a row of that shape, or of the one that its keys show, as a conversation.

    Raises:
        ToolCalls: If a turn calls a tool, or is one's output.
        InputError: If a value is not what the shape needs, showing the value.
    """
    shape = shape or shape_of(row, where, needs_response)
    reader = _Reader(row, where, set())
    turns, has_response, target = reader.read(shape)
    if needs_response:
        for key, number, turn in _raw_turns(row):
            for name in _WEIGHTS:
                if turn.get(name) not in (None, 0, 1):
                    value = f"{key}[{number}].{name} = {turn[name]!r:.60}"
                    raise InputError(f"{where}: {value}: write 0 or 1")
    return Conversation(shape, turns, frozenset(reader.used), has_response, target)


def rejected_turns(row: Mapping[str, Any], where: str) -> list[Message]:
    """Return a row of the shape `preference` with its rejected response.

    Raises:
        InputError: If the row has another shape, or the response is not text.
    """
    if shape_of(row, where, needs_response=True) != "preference":
        keys = ", ".join(row)
        raise InputError(f"{where}: no preference: it needs chosen and rejected; it has {keys:.80}")
    return _Reader(row, where, set()).preference(is_rejected=True)


def first_exchange(
    row: Mapping[str, Any], where: str, shape: Shape | None = None
) -> tuple[str, str, str]:
    """Return the first instruction and response of a row, without a system message.

    The third text is the reason why there is no such pair, or empty: `no_exchange` if the row does
    not begin with a user and an assistant, `not_text`, or `tool_calls`.
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


@dataclass(slots=True)
class _Reader:
    row: Mapping[str, Any]
    where: str
    used: set[str]

    def read(self, shape: Shape) -> tuple[list[Message], bool, str]:
        if shape == "messages":
            return self._turns("messages"), False, ""
        if shape == "sharegpt":
            key = "conversations" if self.row.get("conversations") is not None else "conversation"
            return [*self._system(), *self._turns(key)], False, ""
        if shape == "batch":
            self.used.update(("body", "custom_id", "method", "url"))
            body = self.row.get("body")
            found = body.get("messages") if isinstance(body, Mapping) else body
            return turns_of(found, self.where, "body.messages"), False, ""
        if shape == "preference":
            return self.preference(), True, ""
        return self._texts(shape)

    def _turns(self, key: str) -> list[Message]:
        self.used.add(key)
        return turns_of(self.row.get(key), self.where, key)

    def preference(self, *, is_rejected: bool = False) -> list[Message]:
        """Return the conversation with the preferred response, or with the rejected one."""
        if self.row.get("preferred_output") is not None:
            self.used.update(("input", "non_preferred_output"))
            given = self.row.get("input")
            found = given.get("messages") if isinstance(given, Mapping) else given
            before = turns_of(found, self.where, "input.messages")
            return [
                *before,
                *self._turns("non_preferred_output" if is_rejected else "preferred_output"),
            ]
        self.used.update(("chosen", "rejected"))
        key = self._first(("prompt", "question"))
        asked = self._side(key, "user") if self.row.get(key) is not None else []
        before = [*self._system(), *asked]
        said = self._side("rejected" if is_rejected else "chosen", "assistant")
        return said if len(said) > 1 and said[: len(before)] == before else before + said

    def _texts(self, shape: Shape) -> tuple[list[Message], bool, str]:
        prompts, more = _PROMPTS[shape]
        asked = self._side(self._first(prompts), "user")
        below = self._text(more) if more and self.row.get(more) is not None else ""
        if below:
            parts = [below, asked[-1].content]
            both = parts if shape == "question_answer" else parts[::-1]
            asked[-1] = asked[-1].model_copy(update={"content": "\n\n".join(both)})
        key = self._first(_RESPONSES[shape])
        if self.row.get(key) is None:
            return [*self._system(), *asked], False, ""
        said = self._side(key, "assistant")
        target = said[0].content if shape == "question_answer" else ""
        return [*self._system(), *asked, *said], True, target

    def _system(self) -> list[Message]:
        key = self._first(_SYSTEM)
        text = self._text(key) if self.row.get(key) is not None else ""
        return [Message(role="system", content=text)] if text else []

    def _first(self, keys: tuple[str, ...]) -> str:
        return next((key for key in keys if self.row.get(key) is not None), keys[0])

    def _side(self, key: str, role: Role) -> list[Message]:
        """Return a text as one turn, or a list of turns."""
        value = self.row.get(key)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return self._turns(key)
        return [Message(role=role, content=self._text(key))]

    def _text(self, key: str) -> str:
        self.used.add(key)
        value = self.row.get(key)
        if key in ("answer", "answers") and isinstance(value, list) and value:
            value = value[0]  # of several gold answers
        if key in ("answer", "answers") and type(value) in (int, float):
            value = str(value)
        if not isinstance(value, str):
            raise InputError(f"{self.where}: {key} = {value!r:.60} is not text; use messages")
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
    own = {
        f"{key}[].{name}"
        for key, _, turn in _raw_turns(row)
        for name, value in turn.items()
        if key in used and value is not None and name not in _TURN_KEYS
    }
    return own | {key for key, value in row.items() if key not in used and value is not None}


def _raw_turns(row: Mapping[str, Any]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for key in ("messages", "conversations", "conversation"):
        found = row.get(key)
        for number, turn in enumerate(found if isinstance(found, list) else []):
            if isinstance(turn, Mapping):
                yield key, number, turn
