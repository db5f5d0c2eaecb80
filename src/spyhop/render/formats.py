"""Built-in chat formats: a mark before each turn, and its end."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from spyhop.schema import Config, Message

_ROLES = ("system", "user", "assistant")
_SWAPPED = (
    "{% if messages|length > 1 and messages[0]['role'] == 'system'"
    " and messages[1]['role'] == 'user' %}"
    "{% set messages = [messages[1], messages[0]] + messages[2:] %}{% endif %}"
)
_EMPTY = "{%% if messages[0]['role'] != 'system' %%}%s{%% endif %%}"


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A stretch of a rendered conversation."""

    text: str
    is_mark: bool
    """Marks may contain special tokens; content never does, whatever its text is."""
    is_supervised: bool
    is_generated: bool = False
    """Part of a supervised response: a prompt ends where the first such span begins, so that
    training cuts the text into tokens where generation does."""


class BlockFormat(Config):
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
    is_system_second: bool = False
    """Whether the system message follows the first user turn, as a sentence appended to it."""

    def chat_template(self) -> str:
        """Return the same format as a Jinja template, for other tools that load the checkpoint."""
        turns = {role: f"{getattr(self, role)}{{{{ message['content'] }}}}" for role in _ROLES}
        return (
            (_SWAPPED if self.is_system_second else "")
            + (_EMPTY % (self.system + self.turn_end) if self.is_empty_system_written else "")
            + "{% for message in messages %}{% if message['role'] == 'system' %}"
            + f"{turns['system']}{self.turn_end}{{% elif message['role'] == 'user' %}}"
            + f"{turns['user']}{self.turn_end}{{% else %}}{turns['assistant']}{{{{ eos_token }}}}"
            + "{% endif %}{% endfor %}"
            + f"{{% if add_generation_prompt %}}{self.assistant}{{% endif %}}"
        )


ORCA = BlockFormat(
    system="### System:\n",
    user="### Human:\n",
    assistant="### Assistant:\n",
    turn_end="\n\n",
    is_empty_system_written=True,
)
"""The blocks of the Orca paper (Figures 7 and 13): an empty system block is kept."""

TURNS = BlockFormat(
    system="<|system|>",
    user="<|user|>",
    assistant="<|assistant|>",
    turn_end="",
    is_empty_system_written=False,
)
"""One special token before each turn, for spyhop's own tokenizers."""

HUMPBACK = BlockFormat(
    system="",
    user="",
    assistant="",
    turn_end="\n\n",
    is_empty_system_written=False,
    is_system_second=True,
)
"""Plain text, as in the Humpback paper: instruction, tag, response (section 2, tagging)."""

SEED_TAG = "Answer the way an AI assistant does."
"""System message of human-written pairs (S_a of the Humpback paper), in our own words."""
WEB_TAG = "Answer with what is known on the web."
"""System message of pairs whose response is web text (S_w). Both are given when a model is asked:
`f"{SEED_TAG} {WEB_TAG}"`."""

FORMATS = {"orca": ORCA, "turns": TURNS, "humpback": HUMPBACK}
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", TURNS.system, TURNS.user, TURNS.assistant)
"""Special tokens of a tokenizer made for `TURNS`; ids 0 and 1 are padding and end."""


def spans(
    messages: Sequence[Message],
    chat_format: BlockFormat,
    end: str = "",
    trained: Collection[int] = (),
) -> Iterator[TextSpan]:
    """Yield the spans of a conversation, each response with the end token's text.

    Responses whose turns are `trained` are targets.
    """
    turns = list(enumerate(messages))
    roles = [message.role for message in messages]
    if chat_format.is_system_second and roles[:2] == ["system", "user"]:
        turns[:2] = [turns[1], turns[0]]
    if chat_format.is_empty_system_written and roles[:1] != ["system"]:
        yield TextSpan(chat_format.system + chat_format.turn_end, is_mark=True, is_supervised=False)
    for number, turn in turns:
        own, after = number in trained, end if turn.role == "assistant" else chat_format.turn_end
        yield TextSpan(getattr(chat_format, turn.role), is_mark=True, is_supervised=False)
        yield TextSpan(turn.content, is_mark=False, is_supervised=own, is_generated=own)
        yield TextSpan(after, is_mark=True, is_supervised=own, is_generated=own)
