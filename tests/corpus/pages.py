"""Pages for tests: good ones, and monsters."""

import gzip
from pathlib import Path

PARAGRAPH = (
    "Sourdough bread rises because wild yeast and bacteria ferment the flour over many hours. "
    "Feed the starter twice on the day before you bake, and keep it in a warm corner of the room. "
)
STEPS = (
    "Weigh the flour first, then pour the water slowly while you stir with a wooden spoon. ",
    "Let the dough rest under a damp towel until it has grown by half its size or so. ",
    "Fold each side towards the middle, turn the bowl, and wait for another half an hour. ",
    "Heat the oven with a stone inside, score the loaf, and bake it until the crust sings. ",
    "Cool it on a rack before cutting, since the crumb sets while the steam escapes from it. ",
    "A dense crumb tells that the starter was weak or that the kitchen was much too cold. ",
    "Rye needs more water than wheat, and its dough never becomes smooth under the hands. ",
    "Salt slows the yeast down, which gives the flavour time to develop overnight. ",
)


def article(title: str = "How to bake bread", *, note: str = "") -> str:
    """An HTML page with a menu, an article of two sections, and a footer."""
    body = "".join(f"<p>{step}</p>" for step in STEPS)
    return f"""<!doctype html><html><head><title>{title} - Site</title>
<script>var x = "</p><h1>no heading</h1>";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/all">All recipes</a></li></ul></nav>
<main><h1>{title}</h1><p>{PARAGRAPH}{note}</p>
<h2>The dough</h2>{body}<ul><li>flour</li><li>water<ul><li>warm</li></ul></li></ul>
<h2>Baking times</h2><p>Small loaves take less time than large ones, of course.</p>
<table><tr><th>Loaf</th><th>Minutes</th></tr>
<tr><td>small</td><td>35</td></tr></table><pre>bake --minutes 35
  --crust dark</pre></main>
<div class="related-posts"><p>Read our other stories about cakes, they are really good.</p></div>
<footer>Copyright</footer></body></html>"""


def warc(
    pages: list[tuple[str, bytes]], *, status: str = "200 OK", kind: str = "text/html"
) -> bytes:
    """Response records, each compressed alone."""
    packed = b""
    for url, body in pages:
        http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n".encode() + body
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
            "Content-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(http)}\r\n\r\n"
        )
        packed += gzip.compress(head.encode() + http + b"\r\n\r\n")
    return packed


def slow_page(num: int) -> bytes:
    """A page that takes long: for each of so many ends, a beginning is looked for in vain."""
    return b"<div>" * 900 + b"</p>" * num


def write_articles(folder: Path, num: int) -> None:
    """Write so many different pages as HTML files."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(num):
        (folder / f"{n:04d}.html").write_text(article(f"How to bake bread number {n}"))


MONSTERS: dict[str, bytes] = {
    "nested": b"<p>" + b"<div>" * 100_000 + b"text" + b"</div>" * 100_000,
    "nested spans": b"<p>" + b"<span class=ad>" * 100_000 + b"text",
    "nested custom": b"<nav-a>" * 50_000 + b"text",
    "nested svg": b"<svg>" * 50_000 + b"text" + b"</svg>" * 50_000,
    "nested lists": b"<ul><li>a" * 30_000,
    "nested tables": b"<table><tr><td>a" * 20_000,
    "colspan": b"<table><tr><td colspan=9007199254740992 rowspan=9007199254740992>a<td>b<tr><td>c"
    b"<td>d</table>",
    "wide": b"<p>a</p>" * 200_000,
    "large": b"<p>" + b"word " * 4_000_000,
    "attributes": b"<div " + b"".join(b"a%d='x\">' " % n for n in range(50_000)) + b">text</div>",
    "quotes": b'<a "' * 100_000,
    "open script": b"<script>" + b"<script" * 200_000,
    "comments": b"<!--" * 200_000 + b"--" * 100_000,
    "open plaintext": b"<plaintext>" + b'<a "' * 200_000,
    "links": b"<a href=x>a" * 50_000,
    "headings": b"<h1>a" * 50_000,
    "nulls": b"\x00" * 1_000_000,
    "entities": b"&#x1F600;&nosuch;&amp" * 100_000,
    "one line": b"a" * 4_900_000,
    "spaces": b"<p>" + b" \n" * 2_000_000,
    "open titles": b"<title " * 100_000,
    "signs": b"<" * 300_000,
    "e-mail": b"<p>" + b"a." * 500_000 + b"@" * 500_000,
    "digits": b"<h1>Numbers</h1><p>" + b"1 " * 1_200,
    "latin": "<h1>Caf\u00e9</h1><p>na\u00efve caf\u00e9".encode("latin-1"),
    "mixed": "<meta charset=utf-8><p>caf\u00e9 ".encode() + "caf\u00e9".encode("latin-1"),
    "utf-16": "<h1>Caf\u00e9</h1><p>text".encode("utf-16"),
    "lying charset": b"<meta charset=x-no-such><p>caf\xe9",
    "binary": bytes(range(256)) * 2000,
    "open formulas": b"<math" * 100_000 + b"<span> <math " * 20_000,
    "deep formula": b"<math>" + b"<msup>" * 100_000 + b"x</math>",
    "wide formula": b"<p><math>" + b" " * 1_000_000 + b"<mi>x</mi>" * 90_000 + b"</math>",
    "formula pictures": b"<img " + b'class=math alt="' * 40_000,
    "formula scripts": b"<script " + b"type=math/tex " * 300_000,
    "scripts above": b"<p>" + b"x<sup>2</sup>" * 90_000,
    "readings": b"<ruby>" + b"a<rt>b" * 90_000,
    "lines of code": b"<pre>" + b"<div> " * 90_000,
    "numbers of lines": b"<pre>" + b"1\n" * 300_000 + b"9" * 100_000,
    "sentences": b"<h1>S</h1><p>" + "\u6c34\u3002".encode() * 80_000,
    "one link": b"<a href=x>" + b"<p>some words of a text</p>" * 8_000,
    "shifts": b"<p>" + b"\x1b$B" * 300_000,
    "attributes of links": b"<a " + b"a='b' " * 500_000 + b">x",
    "empty": b"",
}
