"""Kinds of pages whose main text, or its meaning, was lost once; words are of our own making."""

import pytest

from spyhop.corpus.work import ExtractConfig, extract

PROSE = (
    "The harvest of the northern valleys depends on the snow that falls in late winter. ",
    "Farmers measure it with long poles and write the depth into books older than the village. ",
    "When the melt comes early, the terraces dry out before the barley has grown its ears. ",
    "A second sowing is possible only below the old road, where the nights are warmer. ",
    "Most families keep a small store of seed for such years, and share it with neighbours. ",
    "In the last decade this happened four times, which nobody alive had seen before. ",
)
BODY = "".join(f"<p>{text}{PROSE[0]}</p>" for text in PROSE)
SHORT = "".join(f"<p>{text}</p>" for text in PROSE)
CARDS = "".join(
    f"<div class=card><a href=/{n}><h3>Ten things about river {n}</h3></a>"
    f"<p>A short look at river {n} in a dry year.</p></div>"
    for n in range(8)
)
CONSENT = "".join(
    f"<p>We and our partners store information on a device, such as cookies, for purpose {n}.</p>"
    for n in range(8)
)
LINKS = "".join(f"<li><a href=/{n}>Another story about rivers {n}</a></li>" for n in range(5))
CALENDAR = "".join(f"<td>{n}</td>" + "</tr><tr>" * (n % 7 == 0) for n in range(1, 32))


def _text(html: str) -> str:
    page = extract(f"<html><body>{html}</body></html>".encode(), "", ExtractConfig())
    return "\n".join(block.text for block in page.blocks)


@pytest.mark.parametrize(
    "html",
    [
        f"<div class='field field--name-body field--label-hidden'>{BODY}</div>{CARDS}",
        f"<div class='field--label-hidden'>{BODY[:700]}</p></div>"
        f"<div class='field--label-hidden'>{BODY}</div>{CARDS}",
        f"<div class='article has-paywall'>{BODY}</div>{CARDS}",
        f"<div class='content-sidebar-wrap'><main>{BODY}</main><aside>{CARDS}</aside></div>",
        f"<div class='author-article'>{BODY}</div>{CARDS}",
        f"<div class='post comments-open no-sidebar'>{BODY}</div>",
        "".join(f"<p>{text}<a href=x>\n{' ' * 300}more\u2026</a></p>" for text in PROSE),
        "".join(f"<p><a href=x>{'&#65;' * 9}</a> {text}</p>" for text in PROSE),
        "".join(f"<p><a name=s{n}>{text}{PROSE[0]}</p>" for n, text in enumerate(PROSE)),
        "".join(f"<p><a>{text}{PROSE[0]}</p>" for text in PROSE),
        f"<article><a href='/x'><h1>Snow</h1>{BODY}</a></article>",
        f"<a href='/x' class=card><div>{BODY}</div></a><ul>{LINKS}</ul>",
        "<ul class=posts>"
        + "".join(f"<li><a href=u>Mara</a><div>{text}{PROSE[0]}</div></li>" for text in PROSE)
        + "</ul>",
        "<ol id=thread>"
        + "".join(f"<li id=c{n}><p>{text}</p></li>" for n, text in enumerate(PROSE * 2))
        + "</ol>",
        f"<article><header><h1>Snow</h1><p>{PROSE[1]}{PROSE[0]}</p></header>{BODY}</article>",
        f"<article><h1>Snow</h1><figure><img src=a><p>{PROSE[1]}</p></figure>{BODY}</article>",
        "<table>"
        + "".join(f"<tbody><tr><td><p>{text}{PROSE[0]}</p></td></tr></tbody>" for text in PROSE)
        + "</table>",
        f"<table><tbody><tr><td>{BODY}</td></tr></tbody><tbody><tr><td>{SHORT}</td></tr></tbody>"
        "</table>",
        f"<div id=cookie-consent class=modal>{CONSENT}</div><div><h1>Snow</h1>{SHORT}</div>",
        f"<main><h1>Snow</h1>{SHORT}</main><div class='gdpr-dialog'>{CONSENT}</div>",
        f"<form class=newsletter><p>Get the best stories of the week in your inbox every Friday, "
        f"no spam, unsubscribe at any time with one click.</p></form><div>{SHORT}</div>",
        f"<table class=calendar><caption>May 2019</caption><tr>{CALENDAR}</tr></table>"
        f"<div>{SHORT}</div>",
        f"<article><h1>Snow</h1>{BODY}<h2>Read more about it</h2><ul>{LINKS}</ul></article>",
        f"<article><h1>Snow</h1>{BODY}<h3>Related</h3><h3>Share this</h3></article>",
    ],
)  # fmt: skip
def test_the_text_is_found_and_what_surrounds_it_is_not(html: str):
    text = _text(html)
    for sentence in PROSE:
        assert sentence.strip() in text
    for other in ("Ten things", "short look", "Another story", "partners", "inbox", "May 2019",
                  "Related", "Share this", "Read more"):  # fmt: skip
        assert other not in text


def test_a_page_that_is_about_cookies_and_a_forum_keep_their_text():
    assert "purpose 7" in _text(f"<div class=cookie-policy><h1>Cookies</h1>{CONSENT}</div>")
    posts = "".join(f"<div class=comment><p>{text}{PROSE[0]}</p></div>" for text in PROSE)
    assert PROSE[5].strip() in _text(f"<div id=comments><h1>Snow?</h1>{posts}</div>")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("10<sup>6</sup>", "10^6"), ("2<sup>-3</sup>", "2^-3"), ("x<sup>n+1</sup>", "x^{n+1}"),
        ("10<sup>&minus;9</sup> m", "10^\u22129 m"), ("m<sup>2</sup>", "m^2"),
        ("H<sub>2</sub>O", "H2O"), ("C<sub>6</sub>H<sub>12</sub>", "C6H12"),
        ("log<sub>2</sub> x", "log_2 x"), ("x<sub>i</sub>", "x_i"), ("a<sub>i,j</sub>", "a_{i,j}"),
        ("the 1<sup>st</sup>", "the 1st"), ("Name<sup>TM</sup>", "NameTM"),
        ("a fact<sup><a href=#n>[3]</a></sup>", "a fact[3]"),
        ("<math><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><mfrac><mi>a</mi><mi>b</mi></mfrac></math>",
         "x^2+a/b"),
        ("<math alttext='E=mc^2'><mi>E</mi></math>", "E=mc^2"),
        ("<math><semantics><mi>z</mi><annotation encoding='application/x-tex'>z_0</annotation>"
         "</semantics></math>", "z_0"),
        ("<span style='display: none'><math><mi>q</mi></math></span>", "q"),
        ("<script type='math/tex'>e^{i\\pi} &lt; 1</script>", "e^{i\\pi}"),
        ("<script type='math/tex; mode=display'>a<b</script>", "a<b"),
        ("<img class=latex src=1.png alt='a \\le b'>", "a \\le b"),
        ("<img src='/math/render/1.svg' alt='x = 1'>", "x = 1"),
        ("<ruby>\u6f22\u5b57<rp>(</rp><rt>\u304b\u3093\u3058</rt><rp>)</rp></ruby>\u3092",
         "\u6f22\u5b57\u3092"),
        ("<ruby>\u6771<rt>\u3068\u3046\u4eac</ruby>\u3068", "\u6771\u3068"),
        ("hy\u00adphen hy&shy;phen", "hyphen hyphen"), ("nu\x00ll", "null"),
    ],
)  # fmt: skip
def test_meaning_is_kept_in_plain_text(html: str, text: str):
    found = _text(f"<article><h1>T</h1>{SHORT}<p>Here {html} is meant. {PROSE[0]}</p></article>")
    assert " ".join(text.split()) in " ".join(found.split())


@pytest.mark.parametrize(
    ("html", "code"),
    [
        ("<pre><div class=line>import os</div><div class=line>os.getcwd()</div></pre>",
         "import os\nos.getcwd()"),
        ("<pre><p>a = 1<p>b = 2</pre>", "a = 1\nb = 2"),
        ("<pre>a = 1<br>b = 2</pre>", "a = 1\nb = 2"),
        ("<pre><ol><li>a = 1</li><li>  b = 2</li></ol></pre>", "a = 1\n  b = 2"),
        ("<table><tr><td class=gutter><pre>1\n2\n3</pre><td><pre>x\ny\nz</pre></table>", "x\ny\nz"),
        ("<pre><span class=lineno>1 </span>x\n<span class=lineno>2 </span>y</pre>", "x\ny"),
    ],
)  # fmt: skip
def test_code_keeps_its_lines_without_their_numbers(html: str, code: str):
    page = extract(
        f"<article><h1>T</h1>{SHORT}{html}{SHORT}</article>".encode(), "", ExtractConfig()
    )
    assert [block.text for block in page.blocks if block.kind == "code"] == [code]
