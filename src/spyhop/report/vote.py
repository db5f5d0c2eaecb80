"""The page on which people vote: one file that needs no network and runs no text of a row."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from spyhop.evaluate.votes import FORMAT, VotePair
from spyhop.report.html import asset
from spyhop.store import key_of
from spyhop.text.escape import visible
from spyhop.text.template import fill

_JSON_IN_HTML = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def vote_page(names: tuple[str, str], pairs: Sequence[VotePair]) -> str:
    """Return the page. It shows texts as text; its policy allows its own script and style only.

    Args:
        names: Of the two models; voters do not see them.
        pairs: What to vote on, screening items among them.
    """
    items = [{name: visible(text) for name, text in asdict(pair).items()} for pair in pairs]
    data = {"format": FORMAT, "a": names[0], "b": names[1], "page": key_of([*names, items])}
    script, style = (asset(f"vote.{kind}") for kind in ("js", "css"))
    text = json.dumps({**data, "items": items}, ensure_ascii=False).translate(_JSON_IN_HTML)
    return fill(
        asset("vote.html"),
        data=text,
        script=script,
        script_hash=_hash(script),
        style=style,
        style_hash=_hash(style),
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
