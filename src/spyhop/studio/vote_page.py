"""The page on which people vote: one file that needs no network and runs no text of a row."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files

from markupsafe import Markup

from spyhop.evaluate.votes import VotePair
from spyhop.report.html import asset, environment
from spyhop.store import key_of
from spyhop.text.escape import visible

_JSON_IN_HTML = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def vote_page(names: tuple[str, str], pairs: Sequence[VotePair]) -> str:
    """Return the page. It shows texts as text; its policy allows its own script and style only."""
    style = asset("report.css") + _static("studio.css") + _static("people.css")
    texts = {"script": _static("keys.js") + _static("vote.js"), "style": style}
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(texts[name].encode()).digest())
        texts[f"{name}_hash"] = f"sha256-{digest.decode()}"
    found = environment("spyhop.studio").get_template("vote_file.html")
    return found.render(data=pairs_json(names, pairs), **{n: Markup(t) for n, t in texts.items()})


def pairs_json(names: tuple[str, str], pairs: Sequence[VotePair], url: str = "") -> Markup:
    """Return what the script needs, as JSON that is safe inside HTML."""
    shown = [{name: visible(text) for name, text in asdict(pair).items()} for pair in pairs]
    data = {"a": names[0], "b": names[1], "page": key_of([*names, shown]), "pairs": shown}
    text = json.dumps({**data, "url": url}, ensure_ascii=False)
    return Markup(text.translate(_JSON_IN_HTML))


def _static(name: str) -> str:
    return (files("spyhop.studio") / "static" / name).read_text(encoding="utf-8")
