"""Whether a response refuses what it was asked for. English only, by its opening sentences."""

from spyhop.text.normal import normal
from spyhop.text.tables import pattern

OPENING_CHARS = 300
"""Where a refusal says so; a warning at the end of a full answer is no refusal."""
_REFUSES = pattern("refusal_refuses")


def refuses(response: str) -> bool:
    """Return whether a response refuses near its beginning."""
    opening = normal(response[:OPENING_CHARS]).replace("\u2019", "'")
    return _REFUSES.search(" ".join(opening.split())) is not None
