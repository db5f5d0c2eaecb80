import gzip
import json
from pathlib import Path

import pytest

from corpus.pages import article
from spyhop.corpus.charset import decode
from spyhop.corpus.work import ExtractConfig, Refused, extract, text_blocks
from spyhop.text.overlap import words

CONFIG = ExtractConfig()


def _text(html: str | bytes, config: ExtractConfig = CONFIG) -> str:
    data = html if isinstance(html, bytes) else html.encode()
    return "\n".join(block.text for block in extract(data, "", config).blocks)


def test_the_article_stays_and_what_surrounds_it_goes():
    text = _text(article())
    assert "Sourdough" in text and "The dough" in text and "| small | 35 |" in text
    for gone in ("Home", "All recipes", "Copyright", "cakes", "no heading"):
        assert gone not in text
    assert extract(article("A title").encode(), "", CONFIG).title == "A title"


def test_an_aside_that_holds_the_text_is_not_believed():
    paragraph = "<p>" + "This is the only text of the page and it is rather long. " * 5 + "</p>"
    assert "only text" in _text(f"<div class='comment'>{paragraph}</div><p>x</p>")
    longer = f"<main>{paragraph * 3}</main><div class='comment'>{paragraph} reply</div>"
    assert "reply" not in _text(longer)


def test_teasers_in_a_list_do_not_outweigh_an_article():
    teaser = "<li><a href=x>Another story of ours</a><p>{}</p></li>".format("Some words. " * 15)
    html = f"<div><article><p>{'The story itself. ' * 40}</p></article><ul>{teaser * 6}</ul></div>"
    assert "Some words" not in _text(html) and "story itself" in _text(html)


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("caf\u00e9".encode(), "latin-1", "caf\u00e9"),
        ("caf\u00e9".encode("latin-1"), "iso-8859-1", "caf\u00e9"),
        (
            b"<meta charset=koi8-r>" + "\u043a\u043e\u0442".encode("koi8-r"),
            "",
            "\u043a\u043e\u0442",
        ),
        ("\ufeffcaf\u00e9".encode("utf-16"), "", "caf\u00e9"),
        (b"caf\xe9", "x-no-such", "caf\u00e9"),
    ],
    ids=["utf-8 first", "header", "own word", "mark", "unknown name"],
)
def test_encodings(data: bytes, charset: str, text: str):
    assert text in decode(data, charset)


@pytest.mark.parametrize(
    ("data", "config", "reason"),
    [
        (b"x" * 100, ExtractConfig(max_bytes=99), "too_many_bytes"),
        (b"<p>x</p>" * 100, ExtractConfig(max_nodes=40), "too_many_nodes"),
        (b"<p>" * 100, ExtractConfig(max_nodes=40), "too_many_nodes"),
        (b"<div>" * 100, ExtractConfig(max_depth=50), "too_deep"),
        (b"<p>x" * 100, ExtractConfig(extractor="trafilatura", max_nodes=40), "too_many_nodes"),
        (b"<div>" * 100, ExtractConfig(extractor="trafilatura", max_depth=50), "too_deep"),
        (b"\x89PNG\r\n\x1a\n", CONFIG, "not_html"),
    ],
)
def test_a_page_above_a_cap_is_refused(data: bytes, config: ExtractConfig, reason: str):
    with pytest.raises(Refused, match=f"^{reason}$"):
        extract(data, "", config)


def test_plain_text_has_paragraphs_headings_and_code():
    found = text_blocks("# One #\na\nb\n\n```\n# code\n\nx\n```\n## Two\nc")
    assert [(block.kind, block.level, block.text) for block in found] == [
        ("heading", 1, "One"), ("text", 0, "a\nb"), ("code", 0, "# code\n\nx"),
        ("heading", 2, "Two"), ("text", 0, "c"),
    ]  # fmt: skip


def test_trafilatura_is_an_option():
    pytest.importorskip("trafilatura")
    text = _text(article(), ExtractConfig(extractor="trafilatura"))
    assert "Sourdough" in text and "Copyright" not in text


def test_the_gold_of_real_articles_is_found(data_dir: Path):
    folder = data_dir / "html_article_extraction_benchmark"
    gold = json.loads((folder / "ground-truth.json").read_text())
    shares = []
    for name, row in sorted(gold.items()):
        page = gzip.decompress((folder / f"html/{name}.html.gz").read_bytes())
        wanted, found = set(words(row["articleBody"])), set(words(_text(page)))
        shares.append(len(wanted & found) / len(wanted | found))
    assert len(shares) == 181 and sum(shares) / len(shares) > 0.9
