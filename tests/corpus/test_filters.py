from dataclasses import replace

import pytest

from corpus.pages import STEPS
from spyhop.corpus.filters import (
    FILTERS,
    FilterConfig,
    is_toxic,
    reason_against,
    url_reason,
)
from spyhop.corpus.read import ArchivePage
from spyhop.corpus.segment import Section
from spyhop.corpus.work import SegmentConfig, language_of, segments_of

GOOD = "".join(STEPS)
QUALITY = ("gopher_repetition", "gopher_lists")


def _reason(
    text: str = GOOD,
    *,
    heading: str = "How to bake",
    prose: str | None = None,
    language: str = "en",
    num_redacted: int = 0,
    config: FilterConfig | None = None,
) -> str:
    prose = text if prose is None else prose
    place = (0, len(text))
    section = Section(("Title", heading), text, *place, prose, "", language, num_redacted)
    return reason_against(section, config or FilterConfig())


def test_a_good_section_has_no_reason_against_it():
    assert _reason() == ""
    assert _reason(language="de", config=FilterConfig(languages=())) == ""


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("no_heading", {"heading": " ** "}),
        ("capital_heading", {"heading": "HOW TO BAKE"}),
        ("navigation", {"heading": "Quick links"}),
        ("navigation", {"heading": "Advertisement"}),
        ("navigation", {"heading": "Free Newsletter"}),
        ("navigation", {"heading": "See also"}),
        ("language", {"language": "de"}),
        ("language", {"language": "unknown"}),
        ("little_prose", {"text": "12.5 | 13.7 | 99 | " * 40}),
        ("little_prose", {"prose": "Only this."}),
        ("notice", {"text": GOOD + " Please enable JavaScript to go on."}),
        ("cut_off", {"text": GOOD + "And then ..."}),
        ("cut_off", {"text": GOOD + " Read more \u00bb"}),
        ("personal", {"num_redacted": 6}),
        ("repeated_sentences", {"text": GOOD + STEPS[0]}),
        ("repeated_sentences", {"text": GOOD + STEPS[0].replace("spoon", "fork")}),
        ("gopher_repetition", {"text": "\n".join(["One line of this text is here.", GOOD[:90]] * 9),
                               "prose": GOOD, "config": FilterConfig(quality=QUALITY)}),
        ("gopher_repetition", {"text": GOOD + " so it went on and on" * 12,
                               "prose": GOOD, "config": FilterConfig(quality=QUALITY)}),
        ("gopher_lists", {"text": "\n".join(f"- {step}" for step in STEPS), "prose": GOOD,
                          "config": FilterConfig(quality=QUALITY)}),
        ("gopher_lists", {"text": "\n".join(f"{step[:-2]}..." for step in STEPS) + "\nThe end.",
                          "prose": GOOD, "config": FilterConfig(quality=QUALITY)}),
    ],
)  # fmt: skip
def test_each_filter_names_its_reason(reason: str, changes: dict):
    assert _reason(**changes) == reason


def test_every_filter_has_a_case_above():
    cases = {mark.args[1][n][0] for mark in test_each_filter_names_its_reason.pytestmark
             for n in range(len(mark.args[1]))}  # fmt: skip
    assert set(FILTERS) <= cases


@pytest.mark.parametrize(
    "heading", ["FAQ", "NASA", "Search trees and how to balance them", "Tags in HTML explained",
                "What is SQL?", "Cookies with chocolate and nuts"]
)  # fmt: skip
def test_headings_that_only_resemble_are_kept(heading: str):
    assert _reason(heading=heading) == ""


def test_quality_filters_are_off_unless_named_and_pass_good_text():
    listed = "\n".join(f"- {step}" for step in STEPS)
    assert _reason(listed, prose=GOOD) == ""
    assert _reason(config=FilterConfig(quality=QUALITY)) == ""


def test_plain_text_needs_no_heading():
    section = Section((), GOOD, 0, len(GOOD), GOOD, language="en")
    assert reason_against(section, FilterConfig()) == "no_heading"
    assert reason_against(replace(section, is_plain=True), FilterConfig()) == ""
    page = ArchivePage("u", "o", "\n\n".join(STEPS).encode(), is_html=False)
    assert [outcome.reason for outcome in segments_of(page, SegmentConfig())] == [""]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://bad.example/x", "blocked_domain"),
        ("http://www.BAD.example:80/", "blocked_domain"),
        ("https://notbad.example/", ""),
        ("https://bad.example.org/", ""),
        ("https://a.example/casino-online", "blocked_url"),
        ("https://a.example/casinos", ""),
        ("http://[bad/", ""),
    ],
)
def test_pages_are_dropped_by_domain_and_by_words_of_their_address(url: str, reason: str):
    config = FilterConfig(blocked_domains=("bad.example",), blocked_url_words=("Casino",))
    assert url_reason(url, config) == reason and url_reason(url, FilterConfig()) == ""


def test_short_sentences_may_recur():
    assert _reason(GOOD + "Stir it well. " * 3) == ""


def test_abuse_is_flagged():
    assert is_toxic("You should go back to your own country!") and is_toxic("What the FUCK")
    assert not is_toxic(GOOD) and not is_toxic("Scunthorpe, the shiitake and the cockatoo")


@pytest.mark.parametrize(
    ("text", "wanted", "code"),
    [
        ("これは日本語で書かれた長い文章です。", (), "ja"),
        ("这是一段足够长的正文，读者想要保留它。", (), "zh"),
        ("이것은 한국어로 쓰인 긴 글입니다.", (), "ko"),
        ("In step 1 the dough rests for 10 minutes, ask me@example.com. " * 9, ("en",), "en"),
        (GOOD, ("fr",), "en"),
    ],
)
def test_language_is_known_by_script_and_a_wanted_one_wins_ties(
    text: str, wanted: tuple[str, ...], code: str
):
    assert language_of(text, wanted) == code
