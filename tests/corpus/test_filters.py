import pytest

from corpus.pages import STEPS
from spyhop.corpus.filters import FILTERS, Candidate, FilterConfig, is_toxic, reason_against
from spyhop.corpus.segment import Section

GOOD = "".join(STEPS)


def _reason(
    text: str = GOOD,
    *,
    heading: str = "How to bake",
    prose: str | None = None,
    language: str = "en",
    num_redacted: int = 0,
    config: FilterConfig | None = None,
    reason: str = "",
) -> str:
    prose = text if prose is None else prose
    section = Section(("Title", heading), text, 0, len(text), prose, reason)
    return reason_against(Candidate(section, language, num_redacted), config or FilterConfig())


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
        ("too_long", {"reason": "too_long", "heading": "FORUM"}),
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


def test_short_sentences_may_recur():
    assert _reason(GOOD + "Stir it well. " * 3) == ""


def test_abuse_is_flagged():
    assert is_toxic("You should go back to your own country!") and is_toxic("What the FUCK")
    assert not is_toxic(GOOD) and not is_toxic("Scunthorpe, the shiitake and the cockatoo")
