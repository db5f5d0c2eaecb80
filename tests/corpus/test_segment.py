from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus.pages import article
from spyhop.corpus.scan import Block
from spyhop.corpus.segment import CutConfig, cut, render
from spyhop.corpus.work import ExtractConfig, extract, text_blocks

TEXT = "word " * 60  # 300 characters


def _cut(markdown: str, low: int = 200, high: int = 700, title: str = "T"):
    return list(cut(title, text_blocks(markdown), CutConfig(min_chars=low, max_chars=high)))


def test_a_page_that_fits_is_one_segment_with_its_lower_headings():
    (whole,) = _cut(f"# Top\n{TEXT}\n## Sub\n{TEXT}")
    assert whole.headings == ("T", "Top") and whole.reason == ""
    assert whole.text == f"{TEXT.strip()}\n\n## Sub\n\n{TEXT.strip()}"


def test_a_long_page_is_cut_at_its_highest_headings():
    found = _cut(f"# A\n{TEXT}\n## A1\n{TEXT}\n{TEXT}\n### A2\n{TEXT}\n# B\nshort")
    assert [(each.headings, each.reason) for each in found] == [
        (("T", "A"), ""), (("T", "A", "A1"), ""), (("T", "A", "A1", "A2"), ""),
        (("T", "B"), "too_short"),
    ]  # fmt: skip


def test_a_long_text_without_headings_is_too_long():
    assert [each.reason for each in _cut(TEXT * 3)] == ["too_long"]


def test_headings_of_nothing_are_no_sections():
    assert _cut("# A\n## B\n") == [] and _cut("") == []


def test_a_title_that_is_the_first_heading_stands_once():
    (found,) = _cut(f"# T\n{TEXT}")
    assert found.headings == ("T",)


def test_lists_tables_and_code_stay_readable():
    blocks = [
        Block("item", "- a", 1, 0, 0), Block("item", "1. b", 2, 0, 0),
        Block("code", "x\n  y", 0, 0, 0), Block("code", "```", 0, 0, 0),
    ]  # fmt: skip
    assert render(blocks)[0] == "- a\n  1. b\n\n```\nx\n  y\n```\n\n````\n```\n````"


BLOCKS = st.lists(
    st.one_of(
        st.builds(lambda level: Block("heading", f"H{level}", level, 0, 0), st.integers(1, 6)),
        st.builds(lambda num: Block("text", "x" * num, 0, 0, 0), st.integers(1, 400)),
    ),
    max_size=30,
)


@given(BLOCKS)
def test_sections_are_slices_that_never_overlap_and_hold_all_text(blocks: list[Block]):
    text, _ = render(blocks)
    found = list(cut("T", blocks, CutConfig(min_chars=50, max_chars=300)))
    for each in found:
        assert text[each.start : each.end] == each.text
        assert (each.reason == "too_short") == (len(each.text) < 50)
        assert (each.reason == "too_long") == (len(each.text) > 300)
    assert all(one.end <= two.start for one, two in pairwise(found))
    held = sum(each.text.count("x") for each in found)
    assert held == sum(len(block.text) for block in blocks if block.kind == "text")


def test_limits_in_the_wrong_order_are_refused():
    with pytest.raises(ValidationError, match="min_chars 9 is above max_chars 3"):
        CutConfig(min_chars=9, max_chars=3)


def test_an_article_gives_its_sections():
    page = extract(article().encode(), "", ExtractConfig())
    found = list(cut(page.title, page.blocks, CutConfig(min_chars=600, max_chars=1000)))
    assert [each.headings[-1] for each in found if not each.reason] == ["The dough"]


def test_the_how_to_pages_give_segments(data_dir: Path):
    pages = sorted((data_dir / "html_scipy_lectures").rglob("*.html"))
    kept = 0
    for path in pages:
        page = extract(path.read_bytes(), "", ExtractConfig())
        text, _ = render(page.blocks)
        for each in cut(page.title, page.blocks, CutConfig()):
            assert text[each.start : each.end] == each.text
            kept += not each.reason and each.headings != ()
    assert len(pages) == 255 and kept > 250


def test_long_prose_is_cut_between_paragraphs_under_its_heading():
    text = "".join(f"Paragraph {n}. {TEXT[:180]}\n\n" for n in range(12))
    found = _cut(f"# A\n{text}")
    assert len(found) > 2 and {each.reason for each in found} == {""}
    assert {each.headings for each in found} == {("T", "A")}
    assert all(each.text.startswith("Paragraph") for each in found)
    sizes = [len(each.text) for each in found]
    assert max(sizes) < 2 * min(sizes)


def test_a_paragraph_that_introduces_a_list_stays_with_it():
    text = f"{TEXT}\n\n{TEXT}\n\nThese are the parts:\n\n{TEXT}\n\n{TEXT}"
    assert any(each.text.startswith("These are the parts:") for each in _cut(text))


@pytest.mark.parametrize("end", ["\u3002", "\uff01", ". ", "! "])
def test_a_paragraph_above_the_cap_is_cut_between_sentences(end: str):
    sentence = ("\u6c34" * 40 if end.strip() > "\u3000" else "water " * 9 + "flows") + end
    found = _cut(f"# A\n{sentence * 30}")
    assert len(found) > 2 and {each.reason for each in found} == {""}
    assert all(each.text.endswith(end.strip()) for each in found)


def test_characters_of_dense_scripts_count_for_more():
    assert _cut("\u6c34" * 80 + "\u3002", low=200)[0].reason == ""
    assert _cut("w" * 81, low=200)[0].reason == "too_short"
