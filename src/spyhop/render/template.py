"""A tokenizer's own chat template, split into template markup and message contents.

Templates carry no usable marks of what the model is to generate. So each is rendered with stand-ins
for the contents; the text between them is the template's. A response is all that follows the
template's own generation prompt, up to the first special token after the content.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import field_validator

from spyhop.lazy import jinja2
from spyhop.render.formats import TextSpan
from spyhop.schema import Config, InputError, Message, Role

TrainOn = Literal["all", "last"]
"""Responses of a conversation that are supervised."""
Thinking = Literal["keep", "drop", "mask"]
"""Thoughts before a response: supervised, removed, or read without loss."""
History = Literal["last", "split"]
"""Earlier responses that a template rewrites once the conversation continues: only the last
response is supervised, or the row becomes one sequence for each response."""

DAY = "26 Jul 2024"
"""The date in every rendered row: a row must be the same on every day."""
_DATE_PINS = {
    "strftime_now": "{% macro strftime_now(format) %}{{ format|replace('%Y', '2024')"
    "|replace('%m', '07')|replace('%d', '26')|replace('%b', 'Jul')|replace('%B', 'July')"
    "|replace('%y', '24')|replace('%A', 'Friday')|replace('%a', 'Fri')|replace('%H', '12')"
    "|replace('%M', '00')|replace('%S', '00') }}{% endmacro %}",
    "date_string": f"{{% set date_string = '{DAY}' %}}",
}
"""Put before a template that uses the name, and saved with it."""
_THOUGHT_PINS = {
    "enable_thinking": "{% set enable_thinking = false %}",
    "thinking": "{% set thinking = false %}",
}
_PIN_END = "{{ '' }}"
"""After the pins: else the environment drops a line break at the template's start."""
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_GUARD = "\n\n\n\u2003"
"""Around a stand-in: it shows whether the template strips line breaks, all blanks, or nothing."""
_SLOT = re.compile("(\n{3}\u2003|\u2003|)\ue000(r?)([0-9]+)\ue001(\u2003\n{3}|\u2003|)")
_OPENED = re.compile(r"<([A-Za-z_]+)>\s*(</\1>\s*)?$")
"""A thought at the end of a generation prompt, open or closed."""
_INLINE = re.compile(r"\s*(?:<(think|thinking|thought|reasoning)>)?(.*?)</(\w+)>\s*", re.DOTALL)
_MAX_REFUSAL = 120


class TemplateFormat(Config):
    """The format that a tokenizer's chat template (Jinja) writes, with its dates fixed."""

    template: str

    @field_validator("template")
    @classmethod
    def _fix_dates(cls, template: str) -> str:
        return _pinned(template, _DATE_PINS)

    def chat_template(self) -> str:
        """Return the template itself."""
        return self.template

    def without_thoughts(self) -> TemplateFormat:
        """Return the format whose generation prompt opens no thought, where it has a switch."""
        for name, pin in _THOUGHT_PINS.items():
            if re.search(rf"(?<![\w.'\"]){name}(?![\w'\"])", self.template):
                return TemplateFormat(template=_pinned(self.template, {name: pin}))
        return self


def _pinned(template: str, pins: dict[str, str]) -> str:
    used = "".join(pin for name, pin in pins.items() if name in template and pin not in template)
    return f"{used}{_PIN_END}{template}" if used else template


class Shape(NamedTuple):
    """All of a turn that the template's markup may depend on."""

    role: Role
    is_blank: bool
    has_reasoning: bool = False


class _Part(NamedTuple):
    """A stretch of the template's text, or the place of a message's content or thought."""

    text: str
    slot: re.Match[str] | None
    is_supervised: bool
    is_generated: bool

    def span(self, turns: Sequence[Message]) -> TextSpan:
        """Return the stretch in a conversation, with the blanks that the template keeps."""
        text = self.text
        if self.slot is not None:
            left, is_reasoning, message, right = self.slot.groups()
            turn = turns[int(message)]
            text = (turn.reasoning or "") if is_reasoning else turn.content
            if left != _GUARD:
                text = text.lstrip("\n" if "\u2003" in left else None)
            if right != _GUARD[::-1]:
                text = text.rstrip("\n" if "\u2003" in right else None)
        return TextSpan(text, self.slot is None, self.is_supervised, self.is_generated)


class _Response(NamedTuple):
    """A response in the stand-ins' text: prompt and response, as far as its end token."""

    text: str
    start: int
    """Of the response: the prompt's length."""
    content: int
    """Start of the content, behind any thought."""
    has_thought: bool
    rendered: str
    """The finished conversation as the template writes it."""


class Template:
    """Renders conversations with a chat template, as spans.

    Guarantees: prompt and response are the text that the template writes, where a thought that its
    generation prompt opens is closed; otherwise the conversation is refused. A system message that
    the template does not take is written at the start of the first user turn.

    Raises:
        InputError: If the template refuses turns of user and assistant, repeats, omits or rewrites
            contents, or does not show where a response begins and ends.
    """

    def __init__(self, tokenizer: Any, chat_format: TemplateFormat) -> None:  # noqa: ANN401 (transformers' type)
        self._tokenizer = tokenizer
        self._template = chat_format.template
        self._special = special_pattern(tokenizer)
        self._parts: dict[tuple[object, ...], list[list[_Part]]] = {}
        self._response = cache(self._find_response)
        self._has_parts = False
        self._reasoning_keys: tuple[str, ...] = ()
        self._takes_system = True
        self.opens_thought = False
        """The generation prompt ends within a thought."""
        self.can_join = True
        """Several responses of one conversation can be supervised in one sequence."""
        first = (Shape("user", False), Shape("assistant", False))
        self._learn_contents(first)
        opened = _OPENED.search(self._stood_in(first[:1], is_prompt=True))
        self.opens_thought = opened is not None and not opened[2]
        self._learn_reasoning(first)
        self._response(first)
        try:
            self._response((Shape("system", False), *first))
        except InputError:
            self._takes_system = False

    @property
    def has_thoughts(self) -> bool:
        """Whether the template has a place for a thought before a response."""
        return bool(self._reasoning_keys) or self.opens_thought

    def sequences(
        self,
        messages: Sequence[Message],
        *,
        train_on: TrainOn = "all",
        thinking: Thinking = "keep",
        history: History = "last",
    ) -> list[list[TextSpan]]:
        """Return the spans of each sequence that is trained on; none without a supervised turn."""
        turns = self._prepared(messages, thinking)
        numbers = [
            n
            for n, turn in enumerate(turns)
            if turn.role == "assistant" and turn.is_trained is not False and turn.content.strip()
        ]
        if not numbers:
            return []
        shapes = tuple(_shape(turn) for turn in turns[: numbers[-1] + 1])
        chosen = tuple(numbers if train_on == "all" else numbers[-1:])
        key = (shapes, chosen, thinking, history)
        if key not in self._parts:
            self._parts[key] = self._plan(shapes, chosen, thinking, history)
        found = [[part.span(turns) for part in parts] for parts in self._parts[key]]
        for spans, parts in zip(found, self._parts[key], strict=True):
            self._verify(turns, spans, max(int(part.slot[3]) for part in parts if part.slot))
        return found

    def prompt(self, messages: Sequence[Message]) -> list[TextSpan]:
        """Return the spans of the prompt for the next response."""
        turns = self._prepared(messages, "keep")
        shapes = tuple(_shape(turn) for turn in turns)
        if (key := (shapes,)) not in self._parts:
            text = self._stood_in(shapes, is_prompt=True)
            wanted = [n for n, shape in enumerate(shapes) if not shape.is_blank]
            found = [int(slot[3]) for slot in _SLOT.finditer(text) if not slot[2]]
            if found != wanted and sorted(found) != wanted:
                raise _refusal("does not write each message once")
            self._parts[key] = [_cut(text, [])]
        spans = [part.span(turns) for part in self._parts[key][0]]
        _compare(_text(spans), self._render(turns, is_prompt=True))
        return spans

    def forget(self) -> None:
        """Forget the plans that were made before `can_join` was known."""
        self._parts.clear()

    def _learn_contents(self, first: tuple[Shape, ...]) -> None:
        """Find out whether contents are text or, as for images, lists of parts."""
        reason = None
        for self._has_parts in (False, True):
            try:
                if len(_SLOT.findall(self._stood_in(first, is_prompt=False))) == len(first):
                    return
            except InputError as error:
                reason = reason or error
        self._has_parts = False
        raise reason or _refusal("does not write each message once")

    def _learn_reasoning(self, first: tuple[Shape, ...]) -> None:
        shapes = (first[0], Shape("assistant", False, True))
        for keys in (_REASONING_KEYS, *((key,) for key in _REASONING_KEYS)):
            self._reasoning_keys = keys
            try:
                if self._stood_in(shapes, is_prompt=False).count("\ue000r1\ue001") == 1:
                    return
            except InputError:
                pass
        self._reasoning_keys = ()

    def _prepared(self, messages: Sequence[Message], thinking: Thinking) -> list[Message]:
        """Move thoughts out of the contents, and a system message where it is taken."""
        turns = [self._thought_out(turn, thinking) for turn in messages]
        if self._takes_system or not turns or turns[0].role != "system":
            return turns
        system, *rest = turns
        if not system.content.strip() or not rest or rest[0].role != "user":
            return turns if system.content.strip() else rest
        content = f"{system.content}\n\n{rest[0].content}"
        return [rest[0].model_copy(update={"content": content}), *rest[1:]]

    def _thought_out(self, turn: Message, thinking: Thinking) -> Message:
        if turn.role != "assistant":
            return turn
        found = _INLINE.match(turn.content) if "</" in turn.content else None
        is_thought = found is not None and (found[1] or "think") == found[3]
        if found is not None and is_thought and (self.has_thoughts or thinking != "keep"):
            rest = turn.content[found.end() :]
            update = {"content": rest, "reasoning": turn.reasoning or found[2].strip()}
            turn = turn.model_copy(update=update)
        if turn.reasoning and (thinking == "drop" or not self.has_thoughts):
            return turn.model_copy(update={"reasoning": None})
        return turn

    def _plan(
        self,
        shapes: tuple[Shape, ...],
        numbers: Sequence[int],
        thinking: Thinking,
        history: History,
    ) -> list[list[_Part]]:
        """Return the parts of each sequence: which responses share one, and what is supervised."""
        last = self._response(shapes)
        ranges, alone = [], []
        for number in numbers[:-1]:
            try:
                response = self._response(shapes[: number + 1])
            except InputError:  # such as an opening turn of the assistant: context alone
                continue
            if self.can_join and last.text.startswith(response.text):
                ranges.append(response)
            elif history == "split":
                alone.append(_cut(response.text, [response], thinking))
        return [*alone, _cut(last.text, [*ranges, last], thinking)]

    def _find_response(self, shapes: tuple[Shape, ...]) -> _Response:
        """Return the last turn's response behind the template's own generation prompt."""
        number = len(shapes) - 1
        if shapes[-1].is_blank:
            raise _refusal(f"cannot write an empty response (message {number + 1})")
        rendered = self._stood_in(shapes, is_prompt=False)
        slots = [slot for slot in _SLOT.finditer(rendered) if not slot[2]]
        wanted = [n for n, shape in enumerate(shapes) if not shape.is_blank]
        if sorted(int(slot[3]) for slot in slots) != wanted or int(slots[-1][3]) != number:
            raise _refusal(f"does not write each of {len(shapes)} messages once, in order")
        prompt = self._stood_in(shapes[:-1], is_prompt=True)
        content = slots[-1]
        tail = self._closing(rendered, content.end(), shapes)
        if rendered.startswith(prompt) and content.start() >= len(prompt):
            head = rendered[len(prompt) : content.start()]
        else:
            head = self._thought(prompt, rendered, content, shapes)
        has_thought = shapes[-1].has_reasoning or bool(re.search(r"<[A-Za-z_]*think", head))
        has_thought = has_thought or (self.opens_thought and bool(head))
        text = prompt + head + content[0] + tail
        return _Response(text, len(prompt), len(prompt + head), has_thought, rendered)

    def _closing(self, rendered: str, end: int, shapes: tuple[Shape, ...]) -> str:
        """Return what ends a response: a special token, perhaps the next user turn's opening."""
        rest = rendered[end:]
        if (found := self._special.search(rest)) is None:
            more = self._stood_in((*shapes, Shape("user", False)), is_prompt=False)
            slots = [slot for slot in _SLOT.finditer(more) if slot[3] == str(len(shapes) - 1)]
            rest = more[slots[-1].end() :] if slots else ""
            found = self._special.search(rest)
        if found is None or _SLOT.search(rest[: found.end()]):
            raise _refusal("ends a response with no special token")
        return rest[: found.end()]

    def _thought(
        self, prompt: str, rendered: str, content: re.Match[str], shapes: tuple[Shape, ...]
    ) -> str:
        """Return the end of the thought that the prompt opens, where a finished turn has none."""
        opened = _OPENED.search(prompt)
        if opened is None or not rendered.startswith(prompt[: opened.start()]):
            raise _refusal("opens a response otherwise when it is asked for one")
        if opened[2]:
            return ""
        thought = f"\ue000r{len(shapes) - 1}\ue001" if shapes[-1].has_reasoning else ""
        if self._reasoning_keys:  # the text that the template writes between thought and content
            thinking = (*shapes[:-1], shapes[-1]._replace(has_reasoning=True))
            text = self._stood_in(thinking, is_prompt=False)
            own = [slot for slot in _SLOT.finditer(text) if slot[3] == str(len(shapes) - 1)]
            if len(own) == 2:
                return thought + text[own[0].end() : own[1].start()]
        return f"{thought}\n</{opened[1]}>\n\n"

    def _verify(self, turns: Sequence[Message], spans: list[TextSpan], number: int) -> None:
        """Compare with the template's own text of the prompt, and of the finished conversation."""
        shapes = tuple(_shape(turn) for turn in turns[: number + 1])
        response = self._response(shapes)
        expected = _text(part.span(turns) for part in _cut(response.rendered, []))
        _compare(expected, self._render(turns[: number + 1], is_prompt=False))
        prompt = _text(part.span(turns) for part in _cut(response.text[: response.start], []))
        if not expected.startswith(prompt):
            _compare(prompt, self._render(turns[:number], is_prompt=True))
        if not _text(spans).startswith(prompt):
            raise _refusal("opens a response otherwise when it is asked for one")

    def _stood_in(self, shapes: Sequence[Shape], *, is_prompt: bool) -> str:
        turns = []
        for n, shape in enumerate(shapes):
            reasoning = _stand_in(f"r{n}") if shape.has_reasoning else None
            content = "" if shape.is_blank else _stand_in(str(n))
            turns.append(Message(role=shape.role, content=content, reasoning=reasoning))
        return self._render(turns, is_prompt=is_prompt)

    def _render(self, messages: Sequence[Message], *, is_prompt: bool) -> str:
        turns = []
        for message in messages:
            content = message.content
            turn: dict[str, Any] = {"role": message.role, "content": content}
            if self._has_parts:
                turn["content"] = [{"type": "text", "text": content}]
            if message.reasoning:
                turn |= dict.fromkeys(self._reasoning_keys, message.reasoning)
            turns.append(turn)
        options = {"chat_template": self._template, "add_generation_prompt": is_prompt}
        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, **options))
        except RecursionError:
            raise _refusal("calls itself without an end") from None
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            roles = ", ".join(message.role for message in messages[:4]) or "nothing"
            raise _refusal(f"refuses ({roles}): {str(error).splitlines()[0]:.80}") from None


def special_pattern(tokenizer: Any) -> re.Pattern[str]:  # noqa: ANN401 (transformers' type)
    """Return a pattern that finds the tokenizer's special tokens in a text."""
    special = {text for text in tokenizer.all_special_tokens if text}
    added = tokenizer.added_tokens_decoder.values()
    special |= {str(token.content) for token in added if token.special}
    longest_first = sorted(special, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _shape(turn: Message) -> Shape:
    return Shape(turn.role, not turn.content.strip(), bool(turn.reasoning))


def _stand_in(name: str) -> str:
    return f"{_GUARD}\ue000{name}\ue001{_GUARD[::-1]}"


def _text(spans: Any) -> str:  # noqa: ANN401 (any iterable of spans)
    return "".join(span.text for span in spans)


def _cut(text: str, responses: Sequence[_Response], thinking: Thinking = "keep") -> list[_Part]:
    """Cut a text with stand-ins into marks and slots; responses are generated and supervised."""
    bounds = {0, len(text)}
    for response in responses:
        bounds |= {response.start, response.content, len(response.text)}
    for slot in _SLOT.finditer(text):
        bounds |= {slot.start(), slot.end()}
    parts: list[_Part] = []
    for start, end in pairwise(sorted(bounds)):
        own = next((r for r in responses if r.start <= start and end <= len(r.text)), None)
        is_masked = own is not None and thinking == "mask" and own.has_thought
        is_supervised = own is not None and not (is_masked and end <= own.content)
        found = _SLOT.fullmatch(text, start, end)
        parts.append(_Part(text[start:end], found, is_supervised, is_generated=own is not None))
    return parts


def _compare(expected: str, rendered: str) -> None:
    if expected == rendered:
        return
    same = zip(expected, rendered, strict=False)
    place = next((n for n, (one, other) in enumerate(same) if one != other), 0)
    remedy = "thinking = 'drop' or " if "</" in expected else ""
    shown = rendered[max(0, place - 10) : place + 30]
    raise _refusal(f"rewrites contents: {shown!r:.80}", remedy)


def _refusal(reason: str, remedy: str = "") -> InputError:
    return InputError(f"the chat template {reason:.{_MAX_REFUSAL}}; use {remedy}format = 'orca'")
