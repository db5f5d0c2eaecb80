from collections import Counter
from pathlib import Path
from time import process_time

import pytest

from corpus.pages import article
from spyhop.corpus.scan import Block, Refused, scan
from spyhop.corpus.tags import BESIDE


def _scan(html: str, **caps: int) -> list[Block]:
    return scan(html, **{"max_nodes": 100_000, "max_depth": 1000, **caps}).blocks


def _beside(html: str) -> list[int]:
    """Numbers of the containers that say that they are beside the text."""
    own = scan(html, max_nodes=99, max_depth=9).own
    return [number for number, marks in enumerate(own) if marks & BESIDE]


def _texts(html: str) -> list[tuple[str, str]]:
    return [(block.kind, block.text) for block in _scan(html)]


def test_headings_paragraphs_and_breaks():
    html = (
        "<h2>A <i>b</i>&amp;c<a href=#x>\u00b6</a></h2>x <b>y</b>\n z<br>new<p>p<div>d<hr>e</div>"
    )
    assert _texts(html) == [
        ("heading", "A b&c"), ("text", "x y z\nnew"), ("text", "p"), ("text", "d"), ("text", "e"),
    ]  # fmt: skip
    assert [block.level for block in _scan(html)] == [2, 0, 0, 0, 0]


def test_lists_keep_their_marks_and_depth():
    html = "<ul><li>a<ol><li>b<li>c</ol><li><p>d</p><p>e</p></ul>"
    assert [(block.text, block.level) for block in _scan(html)] == [
        ("- a", 1), ("1. b", 2), ("2. c", 2), ("- d", 1), ("e", 0),
    ]  # fmt: skip


def test_code_keeps_its_lines_and_inline_code_its_marks():
    html = "<p>Run <code>x &lt; y</code>:</p><pre>a <span>= 1</span>\n  <div>b</div>\n</pre>"
    assert _texts(html) == [("text", "Run `x < y`:"), ("code", "a = 1\n  b")]


def test_a_table_of_data_is_markdown_and_one_for_layout_is_not():
    data = "<table><thead><tr><th>a<th>b|c</thead><tr><td>1<td></table>"
    assert _texts(data) == [("table", "| a | b\\|c |\n| --- | --- |\n| 1 |  |")]
    layout = f"<table><tr><td>menu<td><p>{'long ' * 80}</p></table>"
    assert [kind for kind, _ in _texts(layout)] == ["text", "text"]
    assert [kind for kind, _ in _texts(f"<table><tr><td>x<td>{data}<tr><td>y<td>z</table>")] == [
        "text", "table", "text", "text",
    ]  # fmt: skip


def test_a_span_of_columns_is_never_unrolled():
    html = f"<table><tr><td colspan={2**53}>a<td>b<tr><td>c<td>d</table>"
    assert _texts(html) == [("table", "| a | b |\n| --- | --- |\n| c | d |")]


@pytest.mark.parametrize(
    "html",
    ["<script>if (a<b) {'</p><h1>x</h1>'}</script>", "<style>p</style>", "<!-- <p>x --->",
     "<nav><ul><li>x</ul></nav>", "<noscript>x</noscript>", "<svg><text>x</text></svg>",
     "<select><option>x</select>", "<textarea>x</textarea>", "<iframe><p>x</iframe>"],
)  # fmt: skip
def test_what_is_no_text_is_not_read(html: str):
    assert _texts(f"<p>before</p>{html}<p>after</p>") == [("text", "before"), ("text", "after")]


def test_custom_elements_are_not_taken_for_known_ones():
    html = "<nav-bar><p>x</p></nav-bar><button-group>y</button-group>"
    assert [text for _, text in _texts(html)] == ["x", "y"]


def test_quotes_and_signs_in_attributes_end_no_tag():
    html = """<p title='a > b "c"'>x</p><p data-x="</p><h1>">y</p>"""
    assert [text for _, text in _texts(html)] == ["x", "y"]


def test_links_and_asides_are_told():
    found = _scan("<div class='Social-share'>s</div><p>ab <a href=x>cd</a></p>")
    assert [block.num_linked for block in found] == [0, 2]
    html = "<div class='leftSidebar'><p>x</p></div><div id=content style='display: none'></div><p>"
    assert _beside(html) == [1, 3]


@pytest.mark.parametrize(
    "attributes",
    ['class="nav-bar"', "class='a leftSidebar'", "id=comments", 'role="navigation"', "hidden",
     'data-x="1"\n\tclass="share_box"', 'style="color: red; display:none"'],
)  # fmt: skip
def test_an_aside_says_so_in_any_spelling(attributes: str):
    assert _beside(f"<div {attributes}>x</div>") == [1]


@pytest.mark.parametrize("attributes", ['data-id="nav"', 'class="navel adapter"', 'title="hidden"'])
def test_other_words_make_no_aside(attributes: str):
    assert _beside(f"<div {attributes}>x</div>") == []


def test_what_a_page_leaves_open_is_closed_as_the_standard_says():
    assert _texts("<ul><li>a<ul><li>b</ul><li>c</ul>d") == [
        ("item", "- a"), ("item", "- b"), ("item", "- c"), ("text", "d"),
    ]  # fmt: skip
    assert _texts("<dl><dt>a<dd>b<dt>c</dl><h2>d</h3>e") == [
        ("text", "a"), ("text", "b"), ("text", "c"), ("heading", "d"), ("text", "e"),
    ]  # fmt: skip
    assert _texts("<div><h2>a</div>b<div><pre>c</div>d") == [
        ("heading", "a"), ("text", "b"), ("code", "c"), ("text", "d"),
    ]  # fmt: skip
    assert _texts("<table><tr><td><div>a</table>b</td></div>c") == [
        ("text", "a"), ("text", "b"), ("text", "c"),
    ]  # fmt: skip
    assert _texts("a</div></td></table><td>b<tr>c") == [
        ("text", "a"), ("text", "b"), ("text", "c"),
    ]  # fmt: skip


def test_paragraphs_left_open_do_not_stand_in_each_other():
    assert len(_scan("<p>x" * 300, max_depth=3)) == 300
    assert len(_scan("<table>" + "<tr><td>x<td>y" * 300, max_depth=5)) == 1


def test_capitals_and_broken_tags():
    html = "<BODY><SCRIPT>x</SCRIPT><H2 CLASS=a>One</H2>1 < 2 <br/>a<!-->b<!-- <p>no -->c<p =x>d"
    assert _texts(html) == [("heading", "One"), ("text", "1 < 2\nabc"), ("text", "d")]


@pytest.mark.parametrize("piece", ["<a ", "<!--", "<!", '<p x="', "<p x='", "</", "<", "&", "<p\n"])
def test_a_page_of_beginnings_takes_linear_time(piece: str):
    started = process_time()
    _scan(piece * (1_000_000 // len(piece)), max_nodes=1_000_000)
    assert process_time() - started < 5


def test_the_walk_finds_what_a_parser_finds(data_dir: Path):
    """The blocks of a page as sent, and of the page as a parser repaired it, are the same."""
    from resiliparse.parse.html import HTMLTree

    num_same = num_all = 0
    for path in sorted((data_dir / "html_scipy_lectures").rglob("*.html"))[::8]:
        html = path.read_text("utf-8", "replace")
        ours = Counter(_texts(html))
        parsed = Counter(_texts(HTMLTree.parse(html).body.html))
        num_same += (ours & parsed).total()
        num_all += (ours | parsed).total()
    assert num_all > 1000 and num_same > 0.99 * num_all


def test_caps_are_kept():
    with pytest.raises(Refused, match="too_deep"):
        _scan("<div>" * 50, max_depth=40)
    with pytest.raises(Refused, match="too_many_nodes"):
        _scan("<p>x</p>" * 50, max_nodes=40)
    assert len(_scan(article(), max_depth=20)) > 15
