"""Messages to token ids and loss mask. The mask is built from segments, never by searching.

The same functions serve training, generation and evaluation, so a model is always asked in the
form that it was trained in.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spyhop.schema import Config, InputError, Message, Role


class Format(Config):
    """How a conversation is written down: a mark before each turn, and what ends it.

    A response is always followed by the tokenizer's end token, which is a target too.
    """

    system: str
    user: str
    assistant: str
    turn_end: str
    """Written after each system and user turn."""
    is_empty_system_written: bool
    """Whether a conversation without system message gets an empty system turn."""

    def mark(self, role: Role) -> str:
        """Return the text that opens a turn of this role."""
        return {"system": self.system, "user": self.user, "assistant": self.assistant}[role]

    def chat_template(self) -> str:
        """Return the same form as a Jinja template, for other tools that load the checkpoint."""
        empty = (
            "{% if messages[0]['role'] != 'system' %}"
            + f"{self.system}{self.turn_end}"
            + "{% endif %}"
        )
        return (
            (empty if self.is_empty_system_written else "")
            + "{% for message in messages %}"
            + f"{{% if message['role'] == 'system' %}}{self.system}{{{{ message['content'] }}}}"
            + f"{self.turn_end}"
            + f"{{% elif message['role'] == 'user' %}}{self.user}{{{{ message['content'] }}}}"
            + f"{self.turn_end}"
            + f"{{% else %}}{self.assistant}{{{{ message['content'] }}}}{{{{ eos_token }}}}"
            + "{% endif %}{% endfor %}"
            + f"{{% if add_generation_prompt %}}{self.assistant}{{% endif %}}"
        )


ORCA = Format(
    system="### System:\n",
    user="### Human:\n",
    assistant="### Assistant:\n",
    turn_end="\n\n",
    is_empty_system_written=True,
)
"""The blocks of the Orca paper (Figures 7 and 13): an empty system block is kept."""

TURNS = Format(
    system="<|system|>",
    user="<|user|>",
    assistant="<|assistant|>",
    turn_end="",
    is_empty_system_written=False,
)
"""One special token for each turn: for tokenizers of our own."""

FORMATS = {"orca": ORCA, "turns": TURNS}
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", TURNS.system, TURNS.user, TURNS.assistant)
"""Special tokens of a tokenizer made for `TURNS`; ids 0 and 1 are padding and end."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a rendered conversation."""

    text: str
    is_mark: bool
    """Marks may hold special tokens; content never does, whatever it says."""
    is_target: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and loss mask of one conversation, both (T,)."""

    ids: npt.NDArray[np.int32]
    is_target: npt.NDArray[np.bool_]


def segments(messages: Sequence[Message], form: Format) -> Iterator[Segment]:
    """Yield the segments of a conversation; only assistant content is a target."""
    if form.is_empty_system_written and (not messages or messages[0].role != "system"):
        yield Segment(form.system + form.turn_end, is_mark=True, is_target=False)
    for message in messages:
        yield Segment(form.mark(message.role), is_mark=True, is_target=False)
        yield Segment(message.content, is_mark=False, is_target=message.role == "assistant")
        if message.role != "assistant":
            yield Segment(form.turn_end, is_mark=True, is_target=False)


class Renderer:
    """Turns conversations into ids with one tokenizer and one format.

    Guarantees (G4): one BOS if and only if the tokenizer wants one; every response is a target and
    so is the end token after it; nothing else is; content never turns into a special token.

    Raises:
        InputError: If the tokenizer has no end token.
    """

    def __init__(self, tokenizer: Any, form: Format) -> None:  # noqa: ANN401 (transformers' type)
        if tokenizer.eos_token_id is None:
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token"
            )
        self.tokenizer = tokenizer
        self.form = form
        self.end_id = int(tokenizer.eos_token_id)
        self._bos = _wanted_bos(tokenizer)
        self._marks: dict[str, list[int]] = {}

    def chat_template(self) -> str:
        """Return the format's Jinja template, with the BOS that this tokenizer wants."""
        return ("{{ bos_token }}" if self._bos else "") + self.form.chat_template()

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
        """Return ids and mask of whole conversations, tokenised in one call."""
        pieces = [list(segments(messages, self.form)) for messages in conversations]
        content = iter(self._content([p.text for some in pieces for p in some if not p.is_mark]))
        return [self._join(some, content) for some in pieces]

    def encode_prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Return the ids up to and including the mark that opens the next response."""
        opening = self._mark(self.form.assistant)
        return [[*encoded.ids.tolist(), *opening] for encoded in self.encode(conversations)]

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of plain content, without marks."""
        return self._content(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Return a response's text, without special tokens and outer blanks."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _join(self, pieces: Iterable[Segment], content: Iterator[list[int]]) -> Encoded:
        ids: list[int] = list(self._bos)
        is_target: list[bool] = [False] * len(ids)
        for piece in pieces:
            new = self._mark(piece.text) if piece.is_mark else list(next(content))
            if piece.is_target:
                new.append(self.end_id)
            ids += new
            is_target += [piece.is_target] * len(new)
        return Encoded(np.array(ids, dtype=np.int32), np.array(is_target, dtype=np.bool_))

    def _mark(self, text: str) -> list[int]:
        if text not in self._marks:
            encoded = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
            self._marks[text] = encoded
        return self._marks[text]

    def _content(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return list(encoded["input_ids"])


def _wanted_bos(tokenizer: Any) -> list[int]:  # noqa: ANN401 (transformers' type)
    if tokenizer.bos_token_id is None:
        return []
    starts_with_bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if starts_with_bos or getattr(tokenizer, "add_bos_token", False):
        return [int(tokenizer.bos_token_id)]
    return []
