"""Hidden reasoning in a response, which is never part of the answer, and end tokens behind it."""

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

    Of a response that ends within a thought only the text before it remains.
    """
    ends = [found.end() for found in _CLOSING.finditer(response)]
    rest = response[ends[-1] :] if ends else response
    opened = _OPENING.search(rest)
    return rest[: opened.start()] if opened else rest


_END = re.compile(
    r"(?:#{3} ?eos_token ?#{3}|#{3} End|"  # Dolly's rendered form
    r"<\|(?:endoftext|end_of_text|im_end|eot_id|eom_id|end|eot|return|end_of_turn)\|>|"
    r"<\|END_OF_TURN_TOKEN\|>|<end_of_turn>|<turn\|>|<eos>|\[EOS\]|\[/?INST\]|"
    r"<\uff5cend\u2581of\u2581sentence\uff5c>|</s>)\Z"
)
LONGEST = 40
"""Characters of the longest mark, rounded up."""


def without_end_marks(text: str) -> str:
    """Return a text without the end tokens of other formats that it ends with.

    `</s>` closes a struck-out text where `<s>` opens one, and is kept then. Linear in the text.
    """
    end, is_struck_out = len(text), "<s>" in text
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        start = max(0, end - LONGEST)
        found = _END.search(text[start:end])
        if found is None or (is_struck_out and found[0] == "</s>"):
            break
        end = start + found.start()
    return text[:end] if text[end:].strip() else text
