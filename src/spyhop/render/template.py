"""A tokenizer's own chat template, split into template markup and message contents.

Templates carry no usable marks of what the model is to generate. So each is rendered with stand-ins
in the place of the contents; what stands between them is the template's. Whatever cannot be told
apart that way is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spyhop.lazy import Lazy
from spyhop.render.formats import TextSpan
from spyhop.schema import Config, InputError, Message, Role

if TYPE_CHECKING:
    import jinja2
else:
    jinja2 = Lazy("jinja2")

DAY = "26 Jul 2024"
"""What a template is told that today is: a row must be rendered the same on every day."""
_CALENDAR = f"{{% macro strftime_now(chat_format) %}}{DAY}{{% endmacro %}}"
"""Put before a template that asks for the day itself."""
_BLANK = "\u2003"
"""Around a stand-in: a template that strips the blanks strips those of contents, too."""
_STAND_IN = re.compile("(\u2003?)\ue000([0-9]+)\ue001(\u2003?)")

Turns = tuple[tuple[Role, bool], ...]
"""Role of every message, and whether it is blank."""


class TemplateFormat(Config):
    """The format that a tokenizer's chat template (Jinja) writes."""

    template: str

    def chat_template(self) -> str:
        """Return the template itself."""
        return self.template


@dataclass(frozen=True, slots=True)
class _Content:
    """The place of a message's content, and whether blanks at its ends are kept."""

    message: int
    keeps_left: bool
    keeps_right: bool
    is_supervised: bool = False

    def of(self, messages: Sequence[Message]) -> str:
        text = messages[self.message].content
        text = text if self.keeps_left else text.lstrip()
        return text if self.keeps_right else text.rstrip()


@dataclass(frozen=True, slots=True)
class _Mark:
    text: str
    is_supervised: bool = False


class Template:
    """Renders conversations with a chat template, in spans.

    The targets of a response are all that the template writes from where it stops when asked for a
    response, up to the first special token after the content, this one included.

    Guarantees: the spans' text is the text that the template writes, up to what follows the last
    response's end; otherwise the conversation is refused. A system message that the template does
    not take is written at the start of the first user turn.

    Raises:
        InputError: If the template refuses turns of user and assistant, repeats, leaves out or
            rewrites contents, opens a response otherwise when asked for one, or ends it with no
            special token.
    """

    def __init__(self, tokenizer: Any, chat_format: TemplateFormat) -> None:  # noqa: ANN401 (transformers' type)
        self._tokenizer = tokenizer
        asks_day = "strftime_now" in chat_format.template
        self._template = (_CALENDAR if asks_day else "") + chat_format.template
        special = [text for text in tokenizer.all_special_tokens if text]
        special += [
            str(token.content)
            for token in tokenizer.added_tokens_decoder.values()
            if token.special and token.content not in special
        ]
        longest_first = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._skeletons: dict[tuple[Turns, bool, tuple[int, ...]], list[_Mark | _Content]] = {}
        self._takes_system = True
        said = [Message(role="user", content="Why?"), Message(role="assistant", content="So.")]
        self.spans(said, trained=[1])
        try:
            self.spans([Message(role="system", content="Be brief."), *said], trained=[2])
        except InputError:
            self._takes_system = False

    def spans(
        self, messages: Sequence[Message], *, trained: Sequence[int] = (), is_prompt: bool = False
    ) -> list[TextSpan]:
        """Return the spans of a conversation, or of the prompt for its next turn.

        Args:
            messages: The turns.
            trained: Numbers of the responses that are targets.
            is_prompt: Whether the opening of the next response is added.

        Raises:
            InputError: If the template does not write this conversation as its contents are.
        """
        taken = self._taken(messages)
        trained = tuple(number - len(messages) + len(taken) for number in trained)
        found = [
            TextSpan(part.text, is_mark=True, is_supervised=part.is_supervised)
            if isinstance(part, _Mark)
            else TextSpan(part.of(taken), is_mark=False, is_supervised=part.is_supervised)
            for part in self._skeleton(_turns(taken), trained, is_prompt=is_prompt)
        ]
        text = "".join(segment.text for segment in found)
        if text != (whole := self._render(taken, is_prompt=is_prompt)):
            same = zip(text, whole, strict=False)
            place = next((n for n, (one, other) in enumerate(same) if one != other), 0)
            raise InputError(
                "the chat template rewrites what was said: it writes "
                f"{whole[max(0, place - 20) : place + 40]!r} where "
                f"{text[max(0, place - 20) : place + 40]!r} was expected"
            )
        return found

    def _taken(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self._takes_system or not messages or messages[0].role != "system":
            return messages
        system, *rest = messages
        if not rest or rest[0].role != "user" or not system.content.strip():
            return rest if not system.content.strip() else messages
        first = Message(role="user", content=f"{system.content}\n\n{rest[0].content}")
        return [first, *rest[1:]]

    def _skeleton(
        self, turns: Turns, trained: tuple[int, ...], *, is_prompt: bool
    ) -> list[_Mark | _Content]:
        key = (turns, is_prompt, trained)
        if key not in self._skeletons:
            text = self._stood_in(turns, is_prompt=is_prompt)
            parts = self._parts(text, turns)
            for number in trained:
                parts = self._with_targets(parts, text, turns, number)
            self._skeletons[key] = parts
        return self._skeletons[key]

    def _stood_in(self, turns: Turns, *, is_prompt: bool) -> str:
        messages = [
            Message(role=role, content="" if is_blank else f"{_BLANK}\ue000{number}\ue001{_BLANK}")
            for number, (role, is_blank) in enumerate(turns)
        ]
        return self._render(messages, is_prompt=is_prompt)

    def _parts(self, text: str, turns: Turns) -> list[_Mark | _Content]:
        parts: list[_Mark | _Content] = []
        end = 0
        for found in _STAND_IN.finditer(text):
            if found.start() > end:
                parts.append(_Mark(text[end : found.start()]))
            left, number, right = found.groups()
            parts.append(_Content(int(number), bool(left), bool(right)))
            end = found.end()
        if end < len(text):
            parts.append(_Mark(text[end:]))
        there = sorted(part.message for part in parts if isinstance(part, _Content))
        wanted = [number for number, (_, is_blank) in enumerate(turns) if not is_blank]
        if there != wanted:
            roles = ", ".join(role for role, _ in turns)
            raise InputError(
                f"the chat template does not write each message of ({roles}) once, whole: "
                f"found {there}, wanted {wanted}"
            )
        return parts

    def _with_targets(
        self, parts: list[_Mark | _Content], text: str, turns: Turns, number: int
    ) -> list[_Mark | _Content]:
        """Mark what the model is to write of one response: lead, content, end."""
        place = _place_of(parts, number)
        if place is None:
            raise InputError(f"message {number + 1}: an empty response cannot be rendered")
        before = text[: text.index(f"\ue000{number}\ue001")].removesuffix(_BLANK)
        asked = self._stood_in(turns[:number], is_prompt=True)
        lead = before[len(asked) :]
        opening = parts[place - 1] if place else _Mark("")
        closing = parts[place + 1] if place + 1 < len(parts) else _Mark("")
        if not before.startswith(asked) or not (
            isinstance(opening, _Mark) and opening.text.endswith(lead)
        ):
            raise InputError(
                "the chat template opens a response otherwise when it is asked for one: "
                f"{asked[-60:]!r}, not {before[-60:]!r}"
            )
        end = self._special.search(closing.text) if isinstance(closing, _Mark) else None
        if not isinstance(closing, _Mark) or end is None:
            raise InputError("the chat template ends a response with no special token")
        own = [
            _Mark(opening.text.removesuffix(lead)),
            _Mark(lead, is_supervised=True),
            replace(parts[place], is_supervised=True),
            _Mark(closing.text[: end.end()], is_supervised=True),
            _Mark(closing.text[end.end() :]),
        ]
        whole = [*parts[: max(0, place - 1)], *own, *parts[place + 2 :]]
        return [part for part in whole if not isinstance(part, _Mark) or part.text]

    def _render(self, messages: Sequence[Message], *, is_prompt: bool) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns,
                    chat_template=self._template,
                    tokenize=False,
                    add_generation_prompt=is_prompt,
                    date_string=DAY,
                )
            )
        except (jinja2.TemplateError, TypeError, ValueError, IndexError) as error:
            roles = ", ".join(message.role for message in messages) or "nothing"
            raise InputError(f"the chat template refuses ({roles}): {error!s:.120}") from None


def _place_of(parts: Sequence[_Mark | _Content], number: int) -> int | None:
    places = (n for n, p in enumerate(parts) if isinstance(p, _Content) and p.message == number)
    return next(places, None)


def _turns(messages: Sequence[Message]) -> Turns:
    return tuple((message.role, not message.content.strip()) for message in messages)
