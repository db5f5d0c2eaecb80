"""The system messages: what tells a teacher how to answer."""

import re
from dataclasses import dataclass
from typing import Literal

Style = Literal["answer", "short", "steps", "simple"]


@dataclass(frozen=True, slots=True)
class StyledMessage:
    """One system message and the style of answer that it asks for."""

    id: str
    text: str
    style: Style


SYSTEM_MESSAGES = (
    StyledMessage("answer", "Give only the answer.", "answer"),
    StyledMessage("short", "Reason in a few words.", "short"),
    StyledMessage("steps", "Explain each step.", "steps"),
    StyledMessage("simple", "Explain as if to a child.", "simple"),
)

CUES: tuple[tuple[Style, frozenset[str]], ...] = (
    ("answer", frozenset({"only", "just", "alone"})),
    ("simple", frozenset({"child", "simple", "simply"})),
    ("short", frozenset({"few", "short", "brief", "briefly"})),
)
"""Words that tell a style; the first that fits wins."""

BY_ID = {message.id: message for message in SYSTEM_MESSAGES}


def style_of(system: str) -> Style:
    """Return the style that a system message asks for, by its words; the default is every step."""
    words = set(re.findall(r"[a-z]+", system.lower()))
    return next((style for style, cues in CUES if words & cues), "steps")
