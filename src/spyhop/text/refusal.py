"""Whether a response refuses, or says that it cannot answer. English only, by its beginning."""

import re

from spyhop.text.normal import normal
from spyhop.text.tables import pattern

OPENING_CHARS = 300
"""Where a response says so; a warning at the end of a full answer is no refusal."""
_REFUSES, _DECLINES = pattern("refusal_refuses"), pattern("squad_declines")


def refuses(response: str) -> bool:
    """Return whether a response refuses near its beginning."""
    return _opens_with(_REFUSES, response)


def declines(response: str) -> bool:
    """Return whether a response says near its beginning that it does not know."""
    return _opens_with(_DECLINES, response)


def _opens_with(phrase: re.Pattern[str], response: str) -> bool:
    opening = normal(response[:OPENING_CHARS]).replace("\u2019", "'")
    return phrase.search(" ".join(opening.split())) is not None
