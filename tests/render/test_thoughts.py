"""Templates that open, remove or carry thoughts, in words of our own; and turns of other kinds."""

from pathlib import Path
from typing import Any

import pytest

from conftest import byte_tokenizer
from spyhop.models.folder import load_tokenizer
from spyhop.render import Renderer, TemplateFormat, named_format, read_format
from spyhop.schema import InputError, Message

PLAIN = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
OPENED = PLAIN.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
"""As QwQ's: the prompt opens a thought that a finished turn need not have."""
SWITCHED = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ (m.reasoning_content or '')|trim }}\n"
    "</think>\n\n{% endif %}{{ m['content'].split('</think>')[-1].lstrip('\n') }}<|over|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
"""As Qwen 3.5's: a switch, a key for the thought, earlier thoughts removed."""
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking and loop.last %}<|start|>assistant<|stop|>analysis\n{{ m.thinking }}<|over|>"
    "{% endif %}<|start|>assistant<|stop|>final\n{{ m.content }}"
    "{% if loop.last %}</s>{% else %}<|over|>{% endif %}"
    "{% else %}<|start|>{{ m.role }}<|stop|>{{ m.content }}<|over|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
"""As gpt-oss': another end for the last turn than for those before it."""
ENDLESS = (
    "{% for m in messages %}{{ '<|start|>' if m.role == 'user' else '<|stop|>' }}\n"
    "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|stop|>\n{% endif %}"
)
"""As GLM 4's: only the next turn shows that a response is over."""
PARTS = (
    "{% for m in messages %}<|start|>{{ m.role }}: "
    "{% for part in m.content %}{{ part.text }}{% endfor %}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:{% endif %}"
)
"""As a vision model's: contents are lists of parts."""
USER, MORE = Message(role="user", content="Why?"), Message(role="user", content="And?")
SAID, LAST = Message(role="assistant", content="So."), Message(role="assistant", content="Yes.")
DEEP = Message(role="assistant", content="So.", reasoning="hm")
INLINE = Message(role="assistant", content="<think>\nhm\n</think>\n\nSo.")


@pytest.fixture(scope="module")
def bytes_() -> Any:
    special = ("<|start|>", "<|stop|>", "<|over|>", "</s>")
    return byte_tokenizer(special=special, end="</s>", pad=None, bos="<s>")


@pytest.fixture(scope="module")
def llama(data_dir: Path) -> Any:
    return load_tokenizer(data_dir / "tok_llama2")


def _renderer(tokenizer: Any, template: str) -> Renderer:
    return Renderer(tokenizer, TemplateFormat(template=template))


def _supervised(tokenizer: Any, encoded: Any) -> str:
    ids = encoded.ids[encoded.is_supervised].tolist()
    return tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("template", "turn", "keep", "mask"),
    [
        (OPENED, SAID, "\n</think>\n\nSo.<|over|>", "So.<|over|>"),
        (OPENED, DEEP, "hm\n</think>\n\nSo.<|over|>", "So.<|over|>"),
        (OPENED, INLINE, "hm\n</think>\n\nSo.<|over|>", "So.<|over|>"),
        (SWITCHED, SAID, "\n</think>\n\nSo.<|over|>", "So.<|over|>"),
        (SWITCHED, INLINE, "hm\n</think>\n\nSo.<|over|>", "So.<|over|>"),
        (CHANNELS, SAID, "<|stop|>final\nSo.</s>", "<|stop|>final\nSo.</s>"),
        (CHANNELS, DEEP, "<|stop|>analysis\nhm<|over|><|start|>assistant<|stop|>final\nSo.</s>",
         "So.</s>"),
        (PLAIN, INLINE, "<think>\nhm\n</think>\n\nSo.<|over|>", "So.<|over|>"),
        (PLAIN, DEEP, "So.<|over|>", "So.<|over|>"),
        (ENDLESS, SAID, "So.<|start|>", "So.<|start|>"),
        (PARTS, SAID, " So.<|over|>", " So.<|over|>"),
    ],
)  # fmt: skip
def test_what_is_generated_is_supervised(
    bytes_: Any, template: str, turn: Message, keep: str, mask: str
):
    renderer = _renderer(bytes_, template)
    (prompt,) = renderer.encode_prompts([[USER]])
    for thinking, wanted in (("keep", keep), ("mask", mask)):
        (encoded,) = renderer.encode([[USER, turn]], thinking=thinking)
        assert _supervised(bytes_, encoded) == wanted
        assert encoded.ids[: len(prompt)].tolist() == prompt
        assert encoded.ids[-1] == renderer.end_id


def test_without_thoughts_the_saved_template_opens_none(bytes_: Any):
    chat_format = TemplateFormat(template=SWITCHED).without_thoughts()
    renderer = Renderer(bytes_, chat_format)
    (encoded,) = renderer.encode([[USER, INLINE]], thinking="drop")
    assert _supervised(bytes_, encoded) == "So.<|over|>"
    asked = bytes_.apply_chat_template(
        [{"role": "user", "content": "Why?"}], chat_template=renderer.chat_template(),
        tokenize=False, add_generation_prompt=True,
    )  # fmt: skip
    assert asked.endswith("<think>\n\n</think>\n\n")
    assert read_format(chat_format.model_dump(exclude_defaults=True)) == chat_format


@pytest.mark.parametrize("template", [SWITCHED, CHANNELS, OPENED], ids=["switch", "ends", "open"])
def test_a_rewritten_history_leaves_the_last_response_or_splits_the_row(bytes_: Any, template: str):
    renderer = _renderer(bytes_, template)
    turns = [USER, DEEP, MORE, LAST]
    ((last,),) = renderer.encode_sequences([turns])
    assert "hm" not in _supervised(bytes_, last) and "Yes." in _supervised(bytes_, last)
    (split,) = renderer.encode_sequences([turns], history="split")
    alone = [renderer.encode([some])[0] for some in (turns[:2], turns)]
    assert [each.ids.tolist() for each in split] == [each.ids.tolist() for each in alone]
    assert "hm" in _supervised(bytes_, split[0]) and "So." not in _supervised(bytes_, split[1])


def test_turns_without_loss_are_context(bytes_: Any):
    renderer = _renderer(bytes_, PLAIN)
    wrong = Message(role="assistant", content="Wrong.", is_trained=False)
    (encoded,) = renderer.encode([[USER, wrong, MORE, SAID]])
    assert _supervised(bytes_, encoded) == "So.<|over|>"
    (cut,) = renderer.encode([[USER, SAID, MORE, wrong]])
    assert _supervised(bytes_, cut) == "So.<|over|>" and cut.is_supervised[-1]
    assert renderer.encode_sequences([[USER, wrong]]) == [[]]


def test_the_assistant_may_begin(bytes_: Any):
    hello = Message(role="assistant", content="Hello.")
    (encoded,) = _renderer(bytes_, PLAIN).encode([[hello, USER, SAID]])
    assert _supervised(bytes_, encoded).endswith("So.<|over|>")


@pytest.mark.parametrize("text", ["\n\nSo.", "\n", " \n So.\n", "\tSo."])
def test_line_breaks_at_the_start_stay_where_they_are(bytes_: Any, llama: Any, text: str):
    for tokenizer in (bytes_, llama):
        template = PLAIN.replace("<|over|>", tokenizer.eos_token)
        renderer = _renderer(tokenizer, template)
        turns = [Message(role="user", content=text + "?"), Message(role="assistant", content="a")]
        turns[1] = turns[1].model_copy(update={"content": text + "!"})
        (encoded,) = renderer.encode([turns])
        wanted = f"{text}!{tokenizer.eos_token}".lstrip(" ")  # Llama's decoder drops a blank
        assert _supervised(tokenizer, encoded).lstrip(" ") == wanted
        (prompt,) = renderer.encode_prompts([turns[:1]])
        assert encoded.ids[: len(prompt)].tolist() == prompt


def test_the_first_token_of_a_turn_may_be_the_declared_bos():
    tokenizer = byte_tokenizer(special=("<|start|>", "<|over|>"), end="<|over|>", pad=None,
                               bos="<|start|>")  # fmt: skip
    (encoded,) = _renderer(tokenizer, PLAIN).encode([[USER, SAID, MORE, LAST]])
    assert _supervised(tokenizer, encoded) == "So.<|over|>Yes.<|over|>"
    assert encoded.ids.tolist().count(tokenizer.bos_token_id) == 4


def test_ids_are_those_of_the_saved_template_without_a_bos_of_its_own(llama: Any):
    tokenizer = llama
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    renderer = _renderer(tokenizer, PLAIN.replace("<|over|>", tokenizer.eos_token))
    turns = [USER, SAID]
    (encoded,) = renderer.encode([turns])
    whole = tokenizer.apply_chat_template(
        [turn.model_dump() for turn in turns], chat_template=renderer.chat_template(),
        return_dict=True,
    )["input_ids"]  # fmt: skip
    assert whole[: len(encoded.ids)] == encoded.ids.tolist()
    assert tokenizer.bos_token_id not in encoded.ids


def test_dates_are_fixed_and_saved(bytes_: Any):
    dated = "Today is {{ strftime_now('%d %B %Y') }}, {{ date_string }}.\n" + PLAIN
    tokenizer = bytes_
    tokenizer.chat_template = dated
    renderer = Renderer(tokenizer, named_format("chat", tokenizer))
    (encoded,) = renderer.encode([[USER, SAID]])
    text = tokenizer.decode(encoded.ids.tolist(), skip_special_tokens=False)
    assert text.startswith("Today is 26 July 2024, 26 Jul 2024.\n")
    turns = [turn.model_dump() for turn in (USER, SAID)]
    saved = tokenizer.apply_chat_template(
        turns, chat_template=renderer.chat_template(), tokenize=False
    )
    assert saved.startswith(text)


@pytest.mark.parametrize(
    "template",
    [
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}" + PLAIN,
        PLAIN.replace("{{ m['content'] }}", "{{ m['content'] | upper }}"),
        PLAIN.replace("<|over|>", "").replace("<|start|>", "# "),
        PLAIN.replace("m['role']", "m['role'] / 0"),
        "{{ '" + "x" * 500 + "' }}{{ raise_exception('no ' * 200) }}",
    ],
    ids=["recursive", "upper", "endless", "type", "long"],
)
def test_refusals_are_short_and_name_the_remedy(bytes_: Any, template: str):
    with pytest.raises(InputError) as caught:
        _renderer(bytes_, template).encode([[USER, SAID]])
    assert len(str(caught.value)) < 200 and "format = 'orca'" in str(caught.value)
