"""Hidden reasoning in a response, which is never part of the answer."""

import re

_NAME = r"(?:think|thinking|thought|thoughts|reasoning|reason|analysis|reflection|seed:think)"
_CLOSING = re.compile(
    rf"</{_NAME}>|\[/THINK\]|<\|end_of_(?:thought|thinking)\|>|<\|/?think_?end\|>|\u25c1/think\u25b7"
    r"|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_OPENING = re.compile(
    rf"<{_NAME}>|\[THINK\]|<\|(?:begin|start)_of_(?:thought|thinking)\|>|<\|think_?start\|>"
    r"|\u25c1think\u25b7|<\|channel\|>(?:analysis|commentary)",
    re.IGNORECASE,
)


def without_thought(response: str) -> str:
    """Return what follows the last thought of a response.

    A thought whose opening mark is in the prompt ends with its closing mark. A response that ends
    within a thought has no answer: only the text before the thought remains.
    """
    ends = [found.end() for found in _CLOSING.finditer(response)]
    rest = response[ends[-1] :] if ends else response
    opened = _OPENING.search(rest)
    return rest[: opened.start()] if opened else rest
