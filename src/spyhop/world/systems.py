"""The system messages: what tells a teacher how to answer."""

from dataclasses import dataclass
from typing import Literal

Style = Literal["answer", "short", "steps", "simple"]


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """One system message and the style of answer that it asks for."""

    id: str
    text: str
    style: Style


SYSTEM_MESSAGES = (
    SystemMessage("answer", "Give only the answer.", "answer"),
    SystemMessage("short", "Reason in a few words.", "short"),
    SystemMessage("steps", "Explain each step.", "steps"),
    SystemMessage("simple", "Explain as if to a child.", "simple"),
)

BY_ID = {message.id: message for message in SYSTEM_MESSAGES}


def style_of(system: str) -> Style:
    """Return the style that a system message asks for; an unknown message gets every step."""
    return next((m.style for m in SYSTEM_MESSAGES if m.text == system.strip()), "steps")
