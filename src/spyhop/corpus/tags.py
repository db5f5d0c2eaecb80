"""Tags in a page as it was sent: where they begin and end, and what they say of themselves."""

import re

RAW = ("script", "style", "iframe", "noembed", "noframes", "xmp", "title", "textarea")
"""Elements that end at their first end, or with the page."""
UNREAD = re.findall(
    r"\w+",
    "noscript svg math template select object audio video canvas nav footer dialog button",
)
"""Other elements that hold no text, or none of the page's own; most tags stand in them.

One that stands in its like, or never ends, is walked: so no page takes longer than linear time."""
_REST = r"""[^<>=]*+(?:=\s*+(?:"[^"]*+"|'[^']*+')?+[^<>=]*+)*+"""
TAG = re.compile(
    r"<(?:!--(?!-?>)[^-]*+(?:-(?!->)[^-]*+)*+(?:-->|\Z)|"
    + "|".join(
        rf"{name}(?=[\s>])[^<]*+(?:<(?!/{name}\b)[^<]*+)*+(?:</{name}{_REST}>|\Z)" for name in RAW
    )
    + "|"
    + "|".join(
        rf"{name}(?=[\s>])[^<]*+(?:<(?!/?{name}\b)[^<]*+)*+</{name}{_REST}>" for name in UNREAD
    )
    + rf"|((?:a|img|input|meta|link|label|strong|em|b|i)(?=\s)|/?[A-Za-z]{_REST}){_REST}>"
    + r"|[!?/][^<>]*+>)"
)
"""A tag is caught, of links and the like the name only; comments and unread elements are not."""
_CAPITAL_TAG = re.compile(r"</?[A-Za-z]*[A-Z]\w*")
_ASIDE_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        comment comments disqus respond reply replies share sharing sharedaddy social related
        recommend recommended recommendations promo newsletter sidebar breadcrumb breadcrumbs
        cookie cookies popup modal advert advertisement advertising ad ads sponsor sponsored
        outbrain taboola byline caption credit tags taglist subscribe subscription signup pagination
        pager menu navbar nav navigation footer masthead toolbar banner hidden noprint rating
        ratings author bio copyright trending popular login paywall
        """,
    )
)
"""Words in the class, id or role of such elements, on any site."""
_LABEL = re.compile(r"""\s(?:class|id|role)=["']?((?<=")[^"]*|(?<=')[^']*|[^\s"'>]+)""")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_HIDDEN = re.compile(
    r'(?:^|\s)hidden(?:=|$|\s)|aria-hidden="true"|display:\s?none|visibility:\s?hidden'
)


def with_small_tags(html: str) -> str:
    """Return the page with the names of its tags in small letters."""
    return _CAPITAL_TAG.sub(lambda tag: tag.group().lower(), html)


def is_aside(tag: str) -> bool:
    """Tell whether an element says by class, id, role or style that it is beside the text."""
    labels = " ".join(_LABEL.findall(tag))
    if labels.islower():
        words = labels.replace("-", " ").replace("_", " ").split()
    else:
        words = [word.lower() for word in _WORD.findall(labels)]
    if not _ASIDE_WORDS.isdisjoint(words):
        return True
    return ("hidden" in tag or "display" in tag) and _HIDDEN.search(tag) is not None
