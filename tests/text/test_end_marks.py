import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.text.thought import without_end_marks


@pytest.mark.parametrize(
    "mark",
    [
        "###eos_token###", "### eos_token ###", "### End", "<|endoftext|>", "<|im_end|>\n",
        "<|eot_id|>", "</s>", "<end_of_turn>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<|im_end|>\n<|endoftext|>", "[EOS]",
    ],
)  # fmt: skip
def test_end_tokens_of_other_formats_are_removed(mark: str):
    for between in ("", "\n\n"):
        assert without_end_marks(f"It is 4.{between}{mark}") == "It is 4."
    inside = f"The token {mark} ends a response."
    assert without_end_marks(inside) == inside


def test_markup_is_no_end_token():
    for text in ("<p><s>old</s>", "## End of term", "### Ending", "a < b", "[INST]ead"):
        assert without_end_marks(text) == text


def test_long_ugly_text_takes_no_time():
    for piece in ("\n", "</s>\n", "<|im_end|>", "###"):
        assert without_end_marks(piece * 50_000 + "x").endswith("x")
        without_end_marks(piece * 50_000)


@given(st.text())
def test_any_text_keeps_its_beginning(text: str):
    assert text.startswith(without_end_marks(text))
