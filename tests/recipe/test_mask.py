import io
from pathlib import Path

import pytest
from rich.console import Console

import toys
from spyhop.recipe.show import show_mask
from spyhop.schema import InputError, Message


def _shown(artifact, model: Path, *, colour: bool = False, **options) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=colour, color_system="standard" if colour else None,
        highlight=False, soft_wrap=True, width=100,
    )  # fmt: skip
    show_mask(artifact, 3, console, model=model, **options)
    return stream.getvalue()


@pytest.fixture
def answers(tmp_path: Path):
    row = toys.answer_row(1, "why?", "so [it] is")
    more = [*row.messages, Message(role="user", content="and?"),
            Message(role="assistant", content="caf\u00e9")]  # fmt: skip
    return toys.artifact_of(
        tmp_path,
        [row.model_copy(update={"messages": more}), toys.answer_row(2, "q", None, error="down")],
    )


def test_targets_and_special_tokens_are_told_apart(answers, tiny_folder: Path):
    text = _shown(answers, tiny_folder)
    assert "<|user|>why?<|assistant|>[[so [it] is<|end|>]]" in text
    assert "<|user|>and?<|assistant|>[[caf\u00e9<|end|>]]" in text
    assert "a1: 29 tokens, 17 of them supervised" in text
    assert "a2: failed; not trained on" in text


def test_the_last_response_alone(answers, tiny_folder: Path):
    text = _shown(answers, tiny_folder, train_on="last")
    assert "<|assistant|>so [it] is<|end|><|user|>" in text and "[[caf\u00e9<|end|>]]" in text


def test_colours_mark_the_targets(answers, tiny_folder: Path):
    text = _shown(answers, tiny_folder, colour=True)
    assert "\x1b[30;42mso [it] is\x1b[0m" in text
    assert "\x1b[1;35m<|user|>\x1b[0m\x1b[2mwhy?\x1b[0m" in text
    assert "[[" not in text.replace("\x1b[", "")


def test_forms_can_be_compared(answers, tiny_folder: Path):
    assert "### Human:\nwhy?\n\n### Assistant:\n[[so" in _shown(
        answers, tiny_folder, chat_format="orca"
    )
    assert "a1:" in _shown(answers, tiny_folder, chat_format="chat")


def test_rows_without_messages_are_refused(tmp_path: Path, tiny_folder: Path):
    made = toys.numbers.run(tmp_path, toys.Numbers())
    with pytest.raises(InputError, match="its rows have no `messages`"):
        _shown(made, tiny_folder)
