"""Made pages, of kinds that public benchmarks hold few of, with their main text known.

Class names that only sound like something beside the text, posts in list items, leads in headers,
articles inside one link; around them teasers, consent dialogs, newsletter forms, calendars, menus.
Words mean nothing: no column that blocks are judged by depends on them.
"""

import re
from collections.abc import Callable, Iterator
from random import Random

WORDS = re.findall(
    r"\w+",
    """
    the of a to in and that it for on with as was at by from this which or an are not have but had
    one all were when more can out other some time into only new could these two may then first any
    water people over such after made between long must before little know great year place back
    work under last right move thing tell light country story point city answer school study
    """,
)
WRAPPERS = ("div", "section", "article", "main", "td", "center")
BODY_CLASSES = (
    "field field--name-body field--label-hidden", "has-paywall", "content-sidebar-wrap", "wrap",
    "author-article", "entry-content", "no-sidebar", "with-comments", "share-article", "", "", "",
    "node__content clearfix", "col-8", "layout-nav-hidden", "story", "text", "post-body", "page",
    "field field--name-more field--label-hidden", "article-comments-enabled", "is-not-hidden",
    "related-content-below", "has-newsletter", "cookie-policy-text", "ad-free", "main-banner-off",
)  # fmt: skip
Marked = tuple[str, bool]
"""HTML, and whether it is main text."""


def pages(num: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield pages and their main text, a block on each line."""
    for number in range(num):
        random = Random(f"{seed}-{number}")
        before = [make(random) for make in random.sample(NOISE, random.randint(0, 3))]
        after = [make(random) for make in random.sample(NOISE, random.randint(1, 4))]
        if random.random() < 0.1:
            crumbs = random.choices([_menu, _calendar, _newsletter, _foot], k=random.randint(1, 4))
            yield f"<html><body>{''.join(make(random) for make in crumbs)}</body></html>", ""
            continue
        body, gold = _body(random)
        if "class=comment>" in body:
            before, after = [_menu(random)], [_foot(random)]
        title = _sentence(random, 2, 8).rstrip(".")
        heading = random.choice(["<h1>{}</h1>", "<header><h1>{}</h1></header>", "<h2>{}</h2>"])
        is_inside = random.random() < 0.4
        around = "".join(after)
        main = _wrapped(random, heading.format(title) + body + (around if is_inside else ""))
        html = "".join(before) + main + ("" if is_inside else around)
        yield f"<html><body>{html}</body></html>", "\n".join([title, *gold])


def _sentence(random: Random, low: int, high: int) -> str:
    words = random.choices(WORDS, k=random.randint(low, high))
    if len(words) > 8 and random.random() < 0.6:
        words[len(words) // 2] += ","
    return " ".join(words).capitalize() + random.choice("....?!")


def _paragraph(random: Random, low: int = 1, high: int = 6) -> str:
    return " ".join(_sentence(random, 5, 22) for _ in range(random.randint(low, high)))


def _wrapped(random: Random, html: str) -> str:
    for _ in range(random.randint(0, 3)):
        name, label = random.choice(WRAPPERS), random.choice(BODY_CLASSES)
        attribute = f' class="{label}"' if label else ""
        html = f"<{name}{attribute}>{html}</{name}>"
        if name == "td":
            html = f"<table><tr>{html}</tr></table>"
    return html


def _body(random: Random) -> tuple[str, list[str]]:
    """Return main text in one of its forms, and its blocks."""
    texts = [_paragraph(random) for _ in range(random.randint(3, 12))]
    form = random.choice(list(FORMS.values()))
    html = form(random, texts)
    gold = list(texts)
    if random.random() < 0.6:
        for _ in range(random.randint(1, 4)):
            more, lines = _section(random)
            html += more
            gold += lines
    if random.random() < 0.3:
        lead = _paragraph(random, 1, 2)
        html = (
            random.choice(
                [
                    "<header><p>{}</p></header>",
                    "<figure><img src=x><p>{}</p></figure>",
                    "<div class=lead>{}</div>",
                ]
            ).format(lead)
            + html
        )
        gold.append(lead)
    if random.random() < 0.4:
        half = html.count("</p>") // 2
        name = _sentence(random, 2, 6).rstrip(".")
        html = html.replace("</p>", "</p>\0", half + 1).replace("\0", "", half)
        html = html.replace("\0", f"<h2>{name}</h2>")
        gold.append(name)
    if random.random() < 0.3:
        second = [_paragraph(random) for _ in range(random.randint(2, 6))]
        label = random.choice(BODY_CLASSES)
        html = (
            f"<div class='{label}'>{html}</div><div class='{label}'>{_plain(random, second)}</div>"
        )
        gold += second
    return html, gold


def _section(random: Random) -> tuple[str, list[str]]:
    """Return a section as instructions have them: short lists, tables, code, terms."""
    name = _sentence(random, 1, 5)[:-1]
    intro = _sentence(random, 4, 14)
    cells = [[_sentence(random, 1, 3)[:-1] for _ in range(3)] for _ in range(random.randint(2, 5))]
    kind = random.choice(["ul", "ol", "table", "pre", "dl", "p"])
    if kind in ("ul", "ol"):
        lines = [row[0] for row in cells]
        html = f"<{kind}>{''.join(f'<li>{line}</li>' for line in lines)}</{kind}>"
    elif kind == "table":
        lines = [" ".join(cell for row in cells for cell in row)]
        rows = ("".join(f"<td>{cell}</td>" for cell in row) for row in cells)
        html = f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    elif kind == "pre":
        lines = ["\n".join(f"{row[0]} = {row[1]}()" for row in cells)]
        html = f"<pre>{lines[0]}</pre>"
    elif kind == "dl":
        lines = [text for row in cells for text in (row[0], row[1])]
        html = f"<dl>{''.join(f'<dt>{row[0]}</dt><dd>{row[1]}</dd>' for row in cells)}</dl>"
    else:
        lines = [_sentence(random, 3, 9) for _ in cells]
        html = "".join(f"<p>{line}</p>" for line in lines)
    return f"<h2>{name}</h2><p>{intro}</p>{html}", [name, intro, *lines]


def _plain(random: Random, texts: list[str]) -> str:
    return "".join(f"<p>{text}</p>" for text in texts)


def _with_links(random: Random, texts: list[str]) -> str:
    return "".join(f"<p>{text} <a href=x>\n        more\u2026</a></p>" for text in texts)


def _anchors(random: Random, texts: list[str]) -> str:
    return "".join(f"<p><a name=s{n}>{text}</p>" for n, text in enumerate(texts))


def _one_link(random: Random, texts: list[str]) -> str:
    return f"<a href=x>{_plain(random, texts)}</a>"


def _breaks(random: Random, texts: list[str]) -> str:
    return f"<div>{'<br><br>'.join(texts)}</div>"


def _blocks(random: Random, texts: list[str]) -> str:
    return "".join(f"<div>{text}</div>" for text in texts)


def _posts(random: Random, texts: list[str]) -> str:
    named = "<div class=post-author><a href=u>name</a></div><div class=date>3 May 2019</div>"
    head = named if random.random() < 0.5 else "<a href=u>name</a>"
    posts = "".join(f"<li class=post id=p{n}>{head}<p>{t}</p></li>" for n, t in enumerate(texts))
    return f"<{'ul' if random.random() < 0.5 else 'ol'} class=posts>{posts}</ul>"


def _forum(random: Random, texts: list[str]) -> str:
    posts = "".join(f"<div class=comment><cite>name</cite><p>{text}</p></div>" for text in texts)
    return f"<div id=comments>{posts}</div>"


def _items(random: Random, texts: list[str]) -> str:
    return f"<p>{texts[0]}</p><ul>{''.join(f'<li>{text}</li>' for text in texts[1:])}</ul>"


def _rows(random: Random, texts: list[str]) -> str:
    rows = "".join(f"<tbody><tr><td><p>{text}</p></td></tr></tbody>" for text in texts)
    return f"<table>{rows}</table>"


FORMS: dict[str, Callable[[Random, list[str]], str]] = {
    "plain": _plain, "more plain": _plain, "links": _with_links, "anchors": _anchors,
    "one link": _one_link, "breaks": _breaks, "blocks": _blocks, "posts": _posts, "forum": _forum,
    "items": _items,
    "rows": _rows,
}  # fmt: skip


def _teasers(random: Random) -> str:
    name, label = (
        random.choice(["p", "li", "div", "article"]),
        random.choice(["teasers", "related", "more-stories", "grid", "", "list", "recommended"]),
    )
    link = random.random() < 0.6
    has_text = random.random() < 0.5
    pieces = []
    for _ in range(random.randint(4, 12)):
        title = _sentence(random, 5, 12)
        title = f"<a href=x>{title}</a>" if link else title
        more = f"<p>{_paragraph(random, 1, 3)}</p>" if has_text and name != "p" else ""
        pieces.append(f"<{name}>{title}{more}</{name}>")
    heading = random.choice(["", "<h2>More articles</h2>", "<h3>Read next</h3>"])
    return f'<div class="{label}">{heading}{"".join(pieces)}</div>'


def _teaser_list(random: Random) -> str:
    items = "".join(
        f"<li><a href=x>{_sentence(random, 4, 9)}</a><p>{_paragraph(random, 1, 3)}</p></li>"
        for _ in range(random.randint(3, 9))
    )
    return f"<ul>{items}</ul>"


def _menu(random: Random) -> str:
    links = "".join(f"<li><a href=x>{_sentence(random, 1, 3)[:-1]}</a></li>" for _ in range(9))
    return f'<div class="{random.choice(["menu", "navbar", "sidebar", ""])}"><ul>{links}</ul></div>'


def _consent(random: Random) -> str:
    label = random.choice(["cookie-consent", "gdpr-modal", "popup", "privacy-dialog"])
    texts = "".join(f"<p>{_paragraph(random, 1, 4)}</p>" for _ in range(random.randint(1, 5)))
    return (
        f'<div id="{label}" class="{label}"><h3>Your privacy</h3>{texts}<a href=x>Accept</a></div>'
    )


def _newsletter(random: Random) -> str:
    label = random.choice(["newsletter", "signup", "subscribe-box"])
    text = _paragraph(random, 1, 2)
    return f'<form class="{label}"><h3>Newsletter</h3><p>{text}</p><input name=email></form>'


def _calendar(random: Random) -> str:
    days = "".join(f"<td>{n}</td>" + "</tr><tr>" * (n % 7 == 0) for n in range(1, 31))
    head = "<caption>May 2019</caption><tr><th>M<th>T</tr>"
    return f"<table class=calendar>{head}<tr>{days}</tr></table>"


def _comments(random: Random) -> str:
    posts = "".join(
        f"<li class=comment><cite>name</cite><p>{_paragraph(random, 1, 3)}</p></li>"
        for _ in range(random.randint(1, 8))
    )
    return f"<div id=comments><h3>4 comments</h3><ol>{posts}</ol></div>"


def _about(random: Random) -> str:
    return f"<div class=author-bio><h4>About the author</h4><p>{_paragraph(random, 1, 2)}</p></div>"


def _foot(random: Random) -> str:
    return (
        "<div id=footer><p>\u00a9 2019 Name. All rights reserved. <a href=x>Contact</a> "
        "<a href=x>Terms</a></p></div>"
    )


NOISE: list[Callable[[Random], str]] = [
    _teasers, _menu, _consent, _newsletter, _calendar, _comments, _about, _foot, _teasers,
    _teaser_list, _teaser_list,
]  # fmt: skip
