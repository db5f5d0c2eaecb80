"""End tokens that other formats leave behind a response."""

import re

_END = re.compile(
    r"(?:\s*(?:"
    r"#{3} ?eos_token ?#{3}|#{3} End|"  # Dolly's rendered form
    r"<\|(?:endoftext|end_of_text|im_end|eot_id|eom_id|end|eot|return|end_of_turn)\|>|"
    r"<\|END_OF_TURN_TOKEN\|>|<end_of_turn>|<turn\|>|<eos>|\[EOS\]|\[/?INST\]|"
    r"<\uff5cend\u2581of\u2581sentence\uff5c>|</s>"
    r"))+\s*\Z"
)


def without_end_marks(text: str) -> str:
    """Return a text without the end tokens of other formats that it ends with.

    `</s>` closes a struck-out text where `<s>` opens one, and is kept then.
    """
    found = _END.search(text)
    if found is None or ("<s>" in text and "</s>" in found[0]):
        return text
    return text[: found.start()]
