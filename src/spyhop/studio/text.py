"""Texts of rows as HTML: Markdown without any HTML, picture or script of the row's own."""

import json
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markupsafe import Markup

from spyhop.text.escape import visible

MOST_CHARS = 20_000
"""Longer texts are shown as they are, up to `SHOWN_CHARS`: Markdown of any length takes time."""
SHOWN_CHARS = 200_000


class _Parser(MarkdownIt):
    """Markdown with tables, without HTML and pictures; only addresses of the web are links."""

    def validateLink(self, url: str) -> bool:
        """Return whether an address is shown as a link."""
        return url.startswith(("https://", "http://"))


_PARSER = _Parser("commonmark", {"html": False}).enable("table").disable("image")


def rendered(text: str) -> Markup:
    """Return Markdown as HTML; each block takes the direction of its own script."""
    tokens = _PARSER.parse(visible(text))
    for token in tokens:
        if token.type.startswith("heading"):  # a row's headings are none of the page's
            token.tag, token.attrs = "p", {"class": "heading"} if token.nesting == 1 else {}
        if token.nesting == 1 and token.level == 0:  # what is inside it has its direction
            token.attrSet("dir", "auto")
        if style := str(token.attrs.pop("style", "")):  # of a table's cell
            token.attrSet("class", style.removeprefix("text-align:"))
    for each in (inner for token in tokens for inner in token.children or []):
        if each.type == "link_open":
            each.attrs |= {"rel": "noreferrer noopener nofollow", "target": "_blank"}
    html = RendererHTML().render(tokens, _PARSER.options, {})
    return Markup(html.replace("<pre>", '<pre tabindex="0">'))


def as_html(text: str, *, is_plain: bool = False) -> Markup:
    """Return a text as Markdown, or as it is if that is wished or it is long."""
    if not is_plain and len(text) <= MOST_CHARS:
        return Markup('<div class="md">{}</div>').format(rendered(text))
    shown = Markup('<pre class="verbatim" dir="auto" tabindex="0">{}</pre>')
    note = Markup('<p class="note">The first {} of {} characters.</p>')
    cut = note.format(f"{SHOWN_CHARS:,}", f"{len(text):,}") if len(text) > SHOWN_CHARS else ""
    return shown.format(visible(text[:SHOWN_CHARS])) + cut


def as_json(value: Any) -> str:  # noqa: ANN401 (a cell)
    """Return a nested cell as indented JSON, cut where it is long."""
    try:
        found = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        found = str(value)
    return found if len(found) <= SHOWN_CHARS else f"{found[:SHOWN_CHARS]} …"
