"""How rows say that their response ended (G13), for replies of any age."""

import pytest

import toys
from spyhop.models import Reply
from spyhop.schema import Answer, Score, ending_of

HALF = "The answer is 4"
CASES = [
    ("stop", HALF, None, "whole"),
    ("", HALF, None, "whole"),  # a file without a reason
    ("end_turn", HALF, None, "whole"),
    ("stop", " \n", None, "empty"),
    ("length", HALF, None, "cut"),
    ("length", "", None, "cut"),  # all room was spent on a thought
    ("content_filter", HALF, None, "cut"),
    ("content_filter", "", None, "refused"),
    ("content_filter", "", "400 content management policy", "refused"),
    ("error", "", "400 bad request", "failed"),
    ("pause_turn", HALF, None, "cut"),  # a reason that nobody knows
]


@pytest.mark.parametrize(("reason", "text", "error", "ending"), CASES)
def test_every_row_says_how_its_response_ended(reason, text, error, ending):
    assert ending_of(reason, text, error) == ending
    old = {"id": "", "text": text, "finish_reason": reason, "usd": 0.0, "error": error}
    reply = Reply.model_validate(old)  # as the journal of older code holds it
    said = None if error or not text else text
    row = toys.answer_row(1, "q", said, finish_reason=reason, error=error)
    score = Score(
        id="", suite="s", task="t", response=text, extracted=None, correct=True, target="4",
        chance=0.0, finish_reason=reason, response_tokens=1, error=error,
    )  # fmt: skip
    assert (reply.ending, row.ending, score.ending) == (ending,) * 3
    assert (score.value, score.metric) == (1.0, "accuracy")


def test_an_ending_that_is_stated_is_kept():
    reply = Reply(id="", text="I cannot say.", finish_reason="stop", ending="refused")
    assert Reply.model_validate_json(reply.model_dump_json()).ending == "refused"
    row = toys.answer_row(1, "q", "I cannot say.", ending="refused")
    assert Answer.model_validate_json(row.model_dump_json()) == row
