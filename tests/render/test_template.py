"""TemplateFormat templates of the known structures, in words of our own, taken apart."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import byte_tokenizer
from spyhop.models.folder import load_tokenizer
from spyhop.render import Renderer, TemplateFormat, named_format, read_format
from spyhop.schema import InputError, Message

HEADERS = (
    "{{ bos_token }}{% for m in messages %}"
    "<|start|>{{ m['role'] }}<|stop|>\n\n{{ m['content'] | trim }}<|over|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
"""As Llama 3's: a header for each turn, contents stripped."""
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|start|>system\nYou help.<|over|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
"""As Qwen's: a default system message, a line break after each end."""
THOUGHT = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.index0 > ns.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'].split('</think>')[-1] }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
"""As Qwen 3's: empty thoughts before the last response only, thoughts of others taken out."""
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}"
    "{% endif %}"
    "<|start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>model\n{% endif %}"
)
"""As Gemma 2's: no system message, turns that must alternate."""
SYSTEM_IN_USER = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set lead = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}<|start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ (lead if loop.first else '') + m['content'] | trim }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>model\n{% endif %}"
)
"""As Gemma 3's: the system message stands in the first user turn."""
INST = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set lead = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "[ASK] {{ (lead if loop.first else '') + m['content'] }} [/ASK]"
    "{% else %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral's: nothing opens a response but the end of the question."""
TEMPLATES = {
    "headers": HEADERS, "chatml": CHATML, "thought": THOUGHT, "no-system": NO_SYSTEM,
    "system-in-user": SYSTEM_IN_USER, "inst": INST,
}  # fmt: skip
SYSTEM = Message(role="system", content="Be brief.")
USER = Message(role="user", content="Why?")
SAID = Message(role="assistant", content="So.")
MORE = Message(role="user", content="And?")
LAST = Message(role="assistant", content="Yes.")
LENGTHY = [SYSTEM, USER, SAID, MORE, LAST]
CONTENTS = st.text(st.characters(exclude_categories=["Cs", "Co"]), min_size=1, max_size=12).filter(
    lambda text: text.strip()
)


@pytest.fixture(scope="module")
def bytes_() -> Any:
    special = ("<|start|>", "<|stop|>", "<|over|>", "</s>")
    return byte_tokenizer(special=special, end="</s>", pad=None, bos="<s>")


@pytest.fixture(scope="module")
def qwen(data_dir: Path) -> Any:
    tokenizer = load_tokenizer(data_dir / "tok_qwen")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|start|>", "<|stop|>", "<|over|>"]}
    )
    return tokenizer


@pytest.fixture(scope="module")
def llama(data_dir: Path) -> Any:
    return load_tokenizer(data_dir / "tok_llama2")


def _whole(tokenizer: Any, template: str, messages: list[Message], **more: Any) -> str:
    turns = [message.model_dump() for message in messages]
    return tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, **more)


def _tokens(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode([int(each) for each in ids], skip_special_tokens=False)


def _targets(tokenizer: Any, encoded: Any) -> str:
    return _tokens(tokenizer, encoded.ids[encoded.is_supervised])


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [[USER, SAID], [SYSTEM, USER, SAID], LENGTHY], ids=len)
def test_ids_are_those_of_the_whole_text(bytes_: Any, name: str, messages: list[Message]):
    renderer = Renderer(bytes_, TemplateFormat(template=TEMPLATES[name]))
    (encoded,) = renderer.encode([messages], "last")
    if name == "no-system" and messages[0] is SYSTEM:
        messages = [Message(role="user", content="Be brief.\n\nWhy?"), *messages[2:]]
    text = _whole(bytes_, TEMPLATES[name], messages)
    assert _tokens(bytes_, encoded.ids) == text.removesuffix("\n")
    assert encoded.ids[-1] == renderer.end_id and encoded.is_supervised[-1]


@pytest.mark.parametrize(
    ("name", "all_", "last"),
    [
        ("headers", "So.<|over|>Yes.<|over|>", "Yes.<|over|>"),
        ("chatml", "So.<|over|>Yes.<|over|>", "Yes.<|over|>"),
        (
            "thought",
            "<think>\n\n</think>\n\nYes.<|over|>",
            "<think>\n\n</think>\n\nYes.<|over|>",
        ),
        ("no-system", "So.<|over|>Yes.<|over|>", "Yes.<|over|>"),
        ("system-in-user", "So.<|over|>Yes.<|over|>", "Yes.<|over|>"),
        ("inst", " So.</s> Yes.</s>", " Yes.</s>"),
    ],
)
def test_targets_are_what_the_model_is_to_write(bytes_: Any, name: str, all_: str, last: str):
    renderer = Renderer(bytes_, TemplateFormat(template=TEMPLATES[name]))
    assert _targets(bytes_, renderer.encode([LENGTHY], "all")[0]) == all_
    assert _targets(bytes_, renderer.encode([LENGTHY], "last")[0]) == last


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_start_of_its_conversation(bytes_: Any, name: str):
    renderer = Renderer(bytes_, TemplateFormat(template=TEMPLATES[name]))
    (prompt,) = renderer.encode_prompts([LENGTHY[:-1]])
    (encoded,) = renderer.encode([LENGTHY], "last")
    assert encoded.ids[: len(prompt)].tolist() == prompt
    assert int(encoded.is_supervised.argmax()) == len(prompt)
    if name != "no-system":
        asked = _whole(bytes_, TEMPLATES[name], LENGTHY[:-1], add_generation_prompt=True)
        assert _tokens(bytes_, prompt).removeprefix("<s>") == asked.removeprefix("<s>")
    (text,) = renderer.encode_text(["Yes."])
    assert [*prompt, *text, renderer.end_id] == encoded.ids.tolist()


@pytest.mark.parametrize("name", ["headers", "chatml", "no-system", "inst"])
@given(contents=st.lists(CONTENTS, min_size=2, max_size=2))
@settings(max_examples=30)
def test_any_content_is_kept_and_is_no_special_token(bytes_: Any, name: str, contents: list[str]):
    renderer = Renderer(bytes_, TemplateFormat(template=TEMPLATES[name]))
    nasty = [f"{contents[0]}<|over|>", f"x{contents[1]}</s>.<|start|>"]
    asked, said = (
        Message(role=role, content=text)
        for role, text in zip(("user", "assistant"), nasty, strict=True)
    )
    (encoded,) = renderer.encode([[asked, said]])
    ends = [place for place, token in enumerate(encoded.ids) if token == renderer.end_id]
    assert ends[-1] == len(encoded.ids) - 1
    (plain,) = renderer.encode([[USER, SAID]])
    special = set(bytes_.all_special_ids)
    marks = [[t for t in each.ids.tolist() if t in special] for each in (encoded, plain)]
    assert marks[0] == marks[1]
    assert _targets(bytes_, encoded).strip().startswith(nasty[1].strip()[:-1].strip())


def test_blanks_are_stripped_where_the_template_strips_them(bytes_: Any):
    said = Message(role="assistant", content="\n  So. \n")
    for name, wanted in (("headers", "So.<|over|>"), ("chatml", "\n  So. \n<|over|>")):
        (encoded,) = Renderer(bytes_, TemplateFormat(template=TEMPLATES[name])).encode(
            [[USER, said]]
        )
        assert _targets(bytes_, encoded) == wanted


def test_a_row_that_the_template_rewrites_is_refused_and_shown(bytes_: Any):
    renderer = Renderer(bytes_, TemplateFormat(template=THOUGHT))
    said = Message(role="assistant", content="<think>hm</think>So.")
    with pytest.raises(InputError, match=r"rewrites contents: .*So\."):
        renderer.encode([[USER, said]])
    with pytest.raises(InputError, match=r"refuses \(user, user\): order"):
        Renderer(bytes_, TemplateFormat(template=NO_SYSTEM)).encode_prompts([[USER, MORE]])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "no special token"),
        ("{{ messages[0]['content'] }}{{ eos_token }}", "does not write each message"),
        (
            "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{{ eos_token }}"
            "{% endfor %}",
            "does not write each message",
        ),
        (
            "{% for m in messages %}<|start|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}<|start|>model{% endif %}",
            "opens a response otherwise",
        ),
        (
            "{% for m in messages %}{{ m['content'] | upper }}{{ eos_token }}{% endfor %}",
            "rewrites contents",
        ),
        ("{% for m in messages %}{{ m['text'] + 1 }}{% endfor %}", "refuses"),
        ("{% for m in %}", "refuses"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_taken_apart_are_refused(bytes_: Any, template: str, reason: str):
    with pytest.raises(InputError, match=reason):
        Renderer(bytes_, TemplateFormat(template=template))


def test_a_template_does_not_know_the_day(bytes_: Any):
    dated = CHATML.replace("You help.", "{{ strftime_now('%d %b %Y') }}, {{ date_string }}")
    (ids,) = Renderer(bytes_, TemplateFormat(template=dated)).encode_prompts([[USER]])
    assert "26 Jul 2024, 26 Jul 2024" in _tokens(bytes_, ids)


@pytest.mark.parametrize("name", ["headers", "chatml", "thought", "no-system"])
def test_a_real_byte_pair_tokenizer(qwen: Any, name: str):
    renderer = Renderer(qwen, TemplateFormat(template=TEMPLATES[name]))
    long = [
        Message(role="user", content="How many  whales, 1,234 or\n12?"),
        Message(role="assistant", content="Two: 'a' and **b**.\n\n```x = 1```"),
    ]
    (encoded,) = renderer.encode([long])
    whole = qwen(_whole(qwen, TEMPLATES[name], long), add_special_tokens=False)["input_ids"]
    assert encoded.ids.tolist() == whole[: len(encoded.ids)]
    assert _tokens(qwen, whole[len(encoded.ids) :]).strip() == ""
    assert qwen.convert_tokens_to_ids("<|over|>") == renderer.end_id


def test_a_real_sentencepiece_tokenizer(llama: Any):
    """Where every text begins with a blank of its own, pieces still give the ids of the whole."""
    renderer = Renderer(llama, TemplateFormat(template=INST))
    conversation = [
        *LENGTHY[:2],
        Message(role="assistant", content="So be it: 3 whales."),
        *LENGTHY[3:],
    ]
    (encoded,) = renderer.encode([conversation])
    whole = llama(_whole(llama, INST, conversation), add_special_tokens=False)["input_ids"]
    assert encoded.ids.tolist() == whole
    assert llama.convert_ids_to_tokens(encoded.ids[encoded.is_supervised].tolist())[:2] == [
        "\u2581So", "\u2581be",
    ]  # fmt: skip
    (prompt,) = renderer.encode_prompts([LENGTHY[:2]])
    assert encoded.ids[: len(prompt)].tolist() == prompt
    (text,) = renderer.encode_text(["Yes."])
    assert encoded.ids[-len(text) - 1 : -1].tolist() == text


def test_the_form_of_a_name(bytes_: Any):
    tokenizer = copy.deepcopy(bytes_)
    with pytest.raises(InputError, match="no chat template; use one of orca, turns, humpback"):
        named_format("chat", tokenizer)
    tokenizer.chat_template = CHATML
    assert named_format("chat", tokenizer) == TemplateFormat(template=CHATML)
    tokenizer.chat_template = {"default": HEADERS, "tool_use": CHATML}
    assert named_format("chat", tokenizer) == TemplateFormat(template=HEADERS)
    for name in ("chat", "orca", "humpback"):
        chat_format = named_format(name, tokenizer)
        assert read_format(chat_format.model_dump(exclude_defaults=True)) == chat_format
