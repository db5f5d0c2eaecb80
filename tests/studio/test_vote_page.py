"""The page for votes: what it may run, how it reads, and a whole vote in a real browser."""

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from browser import Tab, browser
from spyhop.evaluate.votes import VotePair, read_votes, tallies
from spyhop.studio.vote_page import vote_page

HOSTILE = "</script><script>document.title=1</script><img src=x onerror=alert(1)> {data} \u202e"
NAMES = ("ours <b>", "theirs")
PAIRS = [
    VotePair(id=f"q{n}", question=f"Q{n} {HOSTILE}", a=f"ours {n} {HOSTILE}", b=f"theirs {n}")
    for n in range(5)
] + [VotePair(id="s", question="2 + 2?", a="4", b="5", suite="screening")]


def _style(page: str) -> str:
    return re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]


def test_the_policy_allows_the_pages_own_script_and_style_only():
    page = vote_page(NAMES, PAIRS)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    for text in (script, _style(page)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert page.count("<script") == 2 and not re.search(r"\b(src|href)=", script)
    assert "innerHTML" not in script and "insertAdjacent" not in script and "eval" not in script


def test_texts_are_data_and_names_are_not_shown():
    page = vote_page(NAMES, PAIRS)
    (text,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    data = json.loads(text)
    assert data["pairs"][0]["question"] == f"Q0 {HOSTILE}".replace("\u202e", "[U+202E]")
    assert "<" not in text and ">" not in text
    body = page.replace(text, "")
    assert "ours" not in body and "theirs" not in body


def test_another_question_is_another_page():
    changed = [*PAIRS[:-1], VotePair(id="s", question="2 + 3?", a="4", b="5", suite="screening")]
    first, same, other = (
        re.search(r'"page": "(\w+)"', vote_page(NAMES, pairs))[1]
        for pairs in (PAIRS, list(PAIRS), changed)
    )
    assert first == same != other


def test_colours_have_the_contrast_that_wcag_asks_for():
    blocks = re.findall(r":root \{(.*?)\}", _style(vote_page(NAMES, PAIRS)), re.DOTALL)
    light, dark = dict[str, str](), dict[str, str]()
    for place, block in enumerate(blocks):
        own = dict(re.findall(r"--(\w+): (#\w+);", block))
        light, dark = (light if place % 2 else light | own), dark | own
    assert len(blocks) == 4 and light["paper"] != dark["paper"]
    for colour in (light, dark):
        for text, ground in (("ink", "paper"), ("ink", "soft"), ("muted", "paper"), ("ink", "mark"),
                             ("accent", "paper"), ("on", "accent"), ("ink", "target")):  # fmt: skip
            assert _contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
        assert _contrast(colour["edge"], colour["paper"]) >= 3


def _contrast(first: str, second: str) -> float:
    lights = sorted(map(_light, (first, second)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _light(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


async def _sees(tab: Tab) -> tuple[str, str]:
    return tuple([await tab.run(f"document.getElementById('{n}').textContent") for n in
                  ("left", "right")])  # fmt: skip


async def _start(tab: Tab, rater: str) -> None:
    await tab.run("document.getElementById('rater').focus()")
    await tab.type(rater)
    await tab.press("Enter")
    await tab.until("!document.getElementById('voting').hidden")


async def _vote_for_ours(tab: Tab, times: int) -> None:
    """Prefer `ours` and the right sum, by the keys 1 and 2."""
    for _ in range(times):
        left, _ = await _sees(tab)
        await tab.press("1" if left.startswith(("ours", "4")) else "2")


async def _whole_vote(page: Path, folder: Path) -> None:
    async with browser(folder) as tab:
        await tab.open(page)
        await tab.press("1")  # nobody votes before the start
        await _start(tab, "Ann <b>")
        await _vote_for_ours(tab, 3)
        seen = await _sees(tab)
        await tab.reload()
        assert await _sees(tab) == seen
        where = "document.getElementById('where').textContent"
        assert await tab.run(where) == "Ann <b>: 3 of 6 votes given"
        await tab.press("u")
        assert await tab.run(where) == "Ann <b>: 2 of 6 votes given"
        await tab.run("document.getElementById('keys').click()")
        await tab.press("0")  # keys are off
        assert await tab.run(where) == "Ann <b>: 2 of 6 votes given"
        await tab.run("document.getElementById('keys').click()")
        await _vote_for_ours(tab, 4)
        assert await tab.run("!document.getElementById('end').hidden")
        await tab.press("1")  # no seventh vote
        await tab.run("document.getElementById('save').click()")
        for _ in range(50):
            if list(folder.glob("votes-*.jsonl")):
                break
            await asyncio.sleep(0.1)
        await tab.run("document.getElementById('change').click()")
        await _start(tab, "Bob")
        sides = [(await _sees(tab))[0].startswith(("ours", "4"))]
        for _ in range(5):
            await tab.run("document.querySelector('[data-vote=\"0\"]').click()")
            sides.append((await _sees(tab))[0].startswith(("ours", "4")))
        assert set(sides) == {True, False}
        assert await tab.run(where) == "Bob: 5 of 6 votes given"
        for width in (360, 900, 1400):
            await tab.size(width)
            assert await tab.run("document.documentElement.scrollWidth") <= width
        assert await tab.run("document.title") == "Which response is better?"
        assert tab.errors == []


@pytest.mark.browser
def test_a_vote_by_keys_with_a_reload_is_read_back(tmp_path: Path):
    page = tmp_path / "vote.html"
    page.write_text(vote_page(NAMES, PAIRS), encoding="utf-8")
    asyncio.run(_whole_vote(page, tmp_path))
    (saved,) = tmp_path.glob("votes-*.jsonl")
    votes = read_votes([saved])
    (people,) = tallies(votes)
    assert (votes.a, votes.b, people.items) == (*NAMES, 5)
    assert people.shares[0].value == 1 and votes.screened == {"Ann <b>": (1, 1)}
    assert {row.order for row in votes.verdicts} == {"ab", "ba"}
