"""Instructions that models write: what is cleaned, what is rejected by name, and what is good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spyhop.augment import InstructionFilters, ReversedConfig
from spyhop.augment.instruction import InstructionCheck, clean
from spyhop.text.asking import language_of

FRIDGE = "Do not put it in the fridge, where it dries out faster than anywhere else in the house."
RESPONSE = (
    "Bread stays fresh for about a week if you wrap it in a cloth and put it in a wooden box. "
    f"{FRIDGE} Slice and freeze what you cannot eat in time; it thaws within an hour in a room."
)
CHECK = InstructionCheck(InstructionFilters(), ReversedConfig())
ASKED = "How long does bread stay fresh?"


def _reason(text: str, response: str = RESPONSE) -> str:
    return CHECK.reason(clean(text), response, "en")


@pytest.mark.parametrize(
    "text",
    [
        f"Instruction: {ASKED}",
        f"**Instruction:** {ASKED}",
        f"Question:\n{ASKED}",
        f"Sure! Here is the instruction:\n\n{ASKED}",
        f"Certainly. Here's a possible question for the text:\n{ASKED}",
        f'The instruction is: "{ASKED}"',
        f'The question to which this text is the answer is "{ASKED}"',
        f"This text is the answer to the question: {ASKED}",
        f'"{ASKED}"',
        f"\u201c{ASKED}\u201d",
        f"**{ASKED}**",
        f"<think>\nIt is about bread. Why not ask?\n</think>\n\n{ASKED}",
        f"It is about bread.\n</think>\n{ASKED}",
        f"{ASKED}<|im_end|>",
        f"{ASKED} ###eos_token###",
        f"Question: {ASKED}\n\nAnswer: About a week.",
        f"{ASKED}\n\nResponse: About a week, in a wooden box.",
        f"### Instruction:\n{ASKED}",
        f"User: {ASKED}",
    ],
)
def test_words_around_an_instruction_are_removed(text: str):
    assert clean(text) == ASKED and _reason(text) == ""


@pytest.mark.parametrize(
    ("reason", "texts"),
    {
        "talk": [
            "Okay, let's see. The text is about bread, so someone could ask how to store it.",
            "Hmm, so the user wants a question about bread?",
            "Let me think about which question this text answers.",
            "This text is about how to keep bread fresh.",
            "The passage explains where bread should be kept and why.",
            "The text provides advice on bread. What is the instruction?",
            "What is the answer to the question?",
            "Please provide the instruction or question, and I will write it.",
            "I'm ready to help. What do you need?",
            "This is a great question about bread!",
            "What is the purpose of this text?",
            "You've already covered that with your text.",
            "Here's a Python function for it:\n\n```python\ndef keep(bread):\n    return 1\n```",
            "Here is a more concise version of the text:\n\nUse boxes. Do not use fridges.",
        ],
        "loop": [
            "How is bread kept? How is bread kept? How is bread kept? How is bread kept?",
            "What about the cloth? What about the cloth?",
            "bread and " * 40,
        ],
        "statement": [
            "A wooden box is the best place for bread.",
            "Keeping bread fresh is a question of moisture, and boxes are good at that.",
            "The film is available on a well-known site.",
        ],
        "refusal": [
            "I'm sorry, but I can't help with that.",
            "I cannot write an instruction for this text.",
            "As an AI language model, I do not eat bread.",
        ],
        "other_language": [
            "Wie lange bleibt Brot frisch und was ist mit dem Schrank?",
            "\u9762\u5305\u53ef\u4ee5\u4fdd\u9c9c\u591a\u4e45\uff1f",
            "\u00bfCu\u00e1l es la mejor manera de guardar el pan para que no se seque?",
        ],
        "copy": [
            FRIDGE,
            "wrap it in a cloth and put it in a wooden box.",
        ],
        "answered": [f"{RESPONSE}\nIs that right?", f"How is bread kept fresh?\n\n{RESPONSE}"],
        "prompt_leak": [
            "Write only the instruction, as a person would put it: how is bread kept fresh in warm "
            "kitchens, and which of all the cloths and boxes are best for it?",
            "A wooden box.\n\n### Response:\nBread is kept there.",
        ],
        "too_short": ["Bread", "a?"],
        "empty": ["...", "<think>\nWhat could it be"],
    }.items(),
)
def test_bad_instructions_are_rejected_by_name(reason: str, texts: list[str]):
    assert [_reason(text) for text in texts] == [reason] * len(texts)


@pytest.mark.parametrize(
    "text",
    [
        ASKED,
        "Why?",
        "And then?",
        "how to store bread",
        "Tips for keeping bread fresh",
        "Best places for bread in a small kitchen",
        "Explain why bread dries out in the fridge.",
        "My bread gets hard after two days.",
        "You are a baker. Tell a customer where to keep a loaf.",
        "Given a loaf of bread, how would you keep it for a week?",
        "In two sentences, describe how bread is stored.",
        "You should write a note for guests about the bread.",
        "The following steps must be sorted: slice, wrap, freeze.",
        "What does this function do?\n\n### Code\ndef keep(bread):\n    return bread",
        "Complete the dialogue.\nUser: Is the bread fresh?\nAssistant:",
        "Is the reply right?\nQuestion: Where is bread kept?\nAnswer: In a box",
        f'Explain the sentence "{FRIDGE}"',
        "What is meant by \u201cput it in a wooden box\u201d?",
        f"{FRIDGE} Is that true of rolls?",
        "Summarize this text: Bread is old. It was made of grain and water.",
        "Let's play a game: I name a food and you say how it is kept.",
        "Translate 'Wo ist das Brot?' into English.",
        "I can't find my bread box. Where else can I put a loaf?",
        "3 + 4 =",
    ],
)
def test_good_instructions_are_kept(text: str):
    assert clean(text) == text and _reason(text) == ""


def test_an_instruction_in_the_language_of_its_text_is_kept():
    text = "Wie lange bleibt das Brot frisch und was ist mit dem Schrank?"
    assert CHECK.reason(text, "Eine Woche lang.", "de") == ""


def test_languages_are_told_only_where_they_are_clear():
    assert language_of("How is the bread kept in the house?") == "en"
    assert language_of("Comment est-ce que le pain est fait dans la maison ?") == "fr"
    assert [language_of(text) for text in ("Bread?", "def f(x): return x", "", "42")] == [""] * 4


@given(st.text())
def test_any_text_is_cleaned_once_and_judged(text: str):
    CHECK.reason(clean(text), RESPONSE, "en")
    assert len(clean(text)) <= len(text)


@pytest.mark.parametrize("piece", ["Instruction: ", "the instruction ", "\n", '"', "a ", "</s>\n"])
def test_long_ugly_text_takes_no_time(piece: str):
    CHECK.reason(clean(piece * 5_000), piece * 5_000, "en")
