"""Held-out items on a page, figures on the right, and texts that hide nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toys
from spyhop.report.evaluation import scores_sections
from spyhop.report.html import Table, write_page
from spyhop.report.items import ITEMS, MOST_ITEMS, items_section
from spyhop.schema import Item, Score
from spyhop.text.escape import markdown, visible

HOSTILE = "</td><script>alert(1)</script> \u202eevil\u2066 \x1b[31m"


def _item(number: int, question: str = "") -> Item:
    return Item(
        id=f"i{number}", suite="s", task="t", question=question or f"What is {number}?",
        options=["A", "B"], target="A", chance=0.5,
    )  # fmt: skip


def _score(number: int, right: bool, response: str = "So A.") -> Score:
    return Score(
        id=f"i{number}", suite="s", task="t", response=response, extracted="A" if right else None,
        correct=right, target="A", chance=0.5, finish_reason="stop", response_tokens=3,
    )  # fmt: skip


def _page(root: Path, num: int, differ: set[int]) -> str:
    items = {"s": toys.rows_artifact(root / "i", [_item(n) for n in range(num)])}
    scores = {
        "base": toys.rows_artifact(root / "b", [_score(n, False, HOSTILE) for n in range(num)]),
        "student": toys.rows_artifact(root / "s", [_score(n, n in differ) for n in range(num)]),
    }
    section = items_section(root, items, scores)
    write_page(root, f"T {HOSTILE}", "", [section, *scores_sections(scores, items)], scores)
    return (root / "report.html").read_text()


def test_items_have_links_filters_and_every_models_answer(tmp_path: Path):
    page = _page(tmp_path, 3, differ={1})
    assert page.index('id="item-i1"') < page.index('id="item-i0"')  # those that differ come first
    assert '<a href="#item-i1">i1</a>' in page and "What is 1?" in page
    assert page.count('type="radio" name="m0"') == 3 and ":has(#m1-wrong:checked)" in page
    assert 'data-m0="wrong" data-m1="right"' in page and "no answer found" in page
    lines = [json.loads(line) for line in (tmp_path / ITEMS).read_text().splitlines()]
    assert [line["id"] for line in lines] == ["i0", "i1", "i2"]
    assert lines[1]["answers"]["student"] == {
        "response": "So A.", "extracted": "A", "correct": True, "ending": "whole",
    }  # fmt: skip


def test_the_page_stays_small_and_the_file_has_all_items(tmp_path: Path):
    page = _page(tmp_path, MOST_ITEMS + 50, differ={MOST_ITEMS + 40})
    assert page.count('<tr id="item-') == MOST_ITEMS and f'id="item-i{MOST_ITEMS + 40}"' in page
    assert len((tmp_path / ITEMS).read_text().splitlines()) == MOST_ITEMS + 50


def test_no_text_is_markup_and_none_is_hidden(tmp_path: Path):
    page = _page(tmp_path, 2, differ=set())
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not {"\u202e", "\u2066", "\x1b"} & set(page)
    assert "[U+202E]evil[U+2066]" in page and "[U+001B]" in page


def test_a_suite_of_one_task_has_one_line_and_says_what_is_not_shown(tmp_path: Path):
    scores = {"m": toys.rows_artifact(tmp_path, [_score(n, n % 2 == 0) for n in range(6)])}
    html = "".join(scores_sections(scores, {})[1].blocks)
    assert html.count("not shown to differ from guessing") == 1
    assert "spyhop" in _page(tmp_path / "p", 1, set()).rpartition("<footer>")[2]


def test_columns_of_figures_are_on_the_right():
    rows = [["a 1", "1,204", "+0.5 [-1.0, +2.0]", "3.1 to 4.0", ""], ["b", 7, "", "-1e-05", ""]]
    assert Table(["", "n", "d", "i", "e"], rows).numeric == [False, True, True, True, False]


@given(st.text())
def test_visible_texts_have_no_control_characters_and_keep_their_words(text: str):
    shown = visible(text)
    assert not any(char in "\u202e\u200f\x00\x85" for char in shown)
    assert visible(shown) == shown
    plain = "".join(char for char in text if char.isalnum())
    assert [char for char in shown if char.isalnum() and char in plain][: len(plain)] or not plain


@pytest.mark.parametrize("text", ["a|b", "<b>", "*x*", "`c`", "[l](u)", "two\nlines", "\u202ex"])
def test_markdown_of_unknown_texts_is_one_cell_of_plain_text(text: str):
    cell = markdown(text)
    assert "\n" not in cell and "<" not in cell and "\u202e" not in cell
    assert all(cell[place - 1] == "\\" for place, char in enumerate(cell) if char in "|*`")
