import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spyhop.models.folder import load_tokenizer
from spyhop.render import HUMPBACK, ORCA, SEED_TAG, TURNS, BlockFormat, Renderer, spans
from spyhop.schema import InputError, Message
from spyhop.store import Source
from spyhop.train import NewModelConfig, new_model
from spyhop.train.encoding import masked_row

SYSTEM = Message(role="system", content="Be brief.")
USER = Message(role="user", content="Why?")
SAID = Message(role="assistant", content="So.")
MORE = Message(role="user", content="And?")
LAST = Message(role="assistant", content="Yes.")


def _text(chat_format: BlockFormat, *messages: Message) -> str:
    return "".join(piece.text for piece in spans(messages, chat_format))


def _templated(
    tokenizer: Any, chat_format: BlockFormat, messages: list[Message], **more: Any
) -> str:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = Renderer(tokenizer, chat_format).chat_template()
    turns = [message.model_dump() for message in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, **more)


def test_turns_exact_tokens_and_targets(words: Any):
    (encoded,) = Renderer(words, TURNS).encode([[SYSTEM, USER, SAID, MORE, LAST]])
    tokens = words.convert_ids_to_tokens(encoded.ids.tolist())
    assert tokens == [
        "<|system|>", *"Be\u0120brief.", "<|user|>", *"Why?", "<|assistant|>", *"So.", "<|end|>",
        "<|user|>", *"And?", "<|assistant|>", *"Yes.", "<|end|>",
    ]  # fmt: skip
    targets = [
        t for t, is_supervised in zip(tokens, encoded.is_supervised, strict=True) if is_supervised
    ]
    assert targets == [*"So.", "<|end|>", *"Yes.", "<|end|>"]


def test_orca_exact_tokens_and_targets(words_with_bos: Any):
    (encoded,) = Renderer(words_with_bos, ORCA).encode([[USER, SAID]])
    tokens = words_with_bos.convert_ids_to_tokens(encoded.ids.tolist())
    opening = "### System:\n\n\n### Human:\nWhy?\n\n### Assistant:\n"
    shown = opening.replace(" ", "\u0120").replace("\n", "\u010a")
    assert tokens == ["<s>", *shown, *"So.", "</s>"]
    assert encoded.is_supervised.tolist() == [False] * (1 + len(opening)) + [True] * 4


def test_an_empty_system_block_is_kept_by_orca_and_left_out_by_turns():
    assert _text(ORCA, USER).startswith("### System:\n\n\n### Human:\nWhy?")
    empty = Message(role="system", content="")
    assert _text(ORCA, USER) == _text(ORCA, empty, USER)
    assert _text(TURNS, USER) == "<|user|>Why?"
    assert _text(TURNS, SYSTEM, USER) == "<|system|>Be brief.<|user|>Why?"


def test_humpbacks_form_is_plain_text_with_the_tag_behind_the_instruction(words_with_bos: Any):
    tag = Message(role="system", content=SEED_TAG)
    (encoded,) = Renderer(words_with_bos, HUMPBACK).encode([[tag, USER, SAID]])
    assert words_with_bos.decode(encoded.ids) == f"<s>Why?\n\n{SEED_TAG}\n\nSo.</s>"
    assert words_with_bos.decode(encoded.ids[encoded.is_supervised]) == "So.</s>"
    assert _text(HUMPBACK, USER, SAID) == "Why?\n\nSo."


@pytest.mark.parametrize("chat_format", [ORCA, TURNS, HUMPBACK], ids=["orca", "turns", "humpback"])
def test_the_last_response_alone_can_be_trained_on(words: Any, chat_format: BlockFormat):
    renderer = Renderer(words, chat_format)
    conversation = [SYSTEM, USER, SAID, MORE, LAST]
    (every,), (last,) = (renderer.encode([conversation], which) for which in ("all", "last"))
    assert every.ids.tolist() == last.ids.tolist()
    assert words.decode(every.ids[every.is_supervised]) == "So.<|end|>Yes.<|end|>"
    assert words.decode(last.ids[last.is_supervised]) == "Yes.<|end|>"


def test_the_mask_follows_segments_and_not_text(words: Any):
    """The response's text stands in the prompt too, and a mark's text within the response."""
    said = Message(role="assistant", content="### Assistant:\nWhy?<|assistant|>")
    (encoded,) = Renderer(words, TURNS).encode([[Message(role="user", content=said.content), said]])
    length = len(said.content.encode())
    assert encoded.is_supervised.tolist() == [False] * (length + 2) + [True] * (length + 1)


@pytest.mark.parametrize("chat_format", [ORCA, TURNS], ids=["orca", "turns"])
@pytest.mark.parametrize(
    "text", ["<|end|>", "a<|assistant|>b<|system|>", "<|pad|><|end|> ", "<s></s>"]
)
def test_content_never_becomes_a_special_token(
    words: Any, words_with_bos: Any, chat_format: BlockFormat, text: str
):
    for tokenizer in (words, words_with_bos):
        renderer = Renderer(tokenizer, chat_format)
        special = set(tokenizer.all_special_ids)
        turns = [Message(role=role, content=text) for role in ("system", "user", "assistant")]
        plain = [
            Message(role=role, content="x" * len(text)) for role in ("system", "user", "assistant")
        ]
        marks = [
            [token for token in encoded.ids.tolist() if token in special]
            for encoded in renderer.encode([turns, plain])
        ]
        assert marks[0] == marks[1]
        (ids,) = renderer.encode_text([text])
        assert not special & set(ids) and len(ids) == len(text)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("chat_format", [ORCA, TURNS, HUMPBACK], ids=["orca", "turns", "humpback"])
@pytest.mark.parametrize(
    "messages",
    [
        [USER, SAID],
        [SYSTEM, USER, SAID],
        [SYSTEM, USER, SAID, MORE, LAST],
        [Message(role="system", content=""), USER, SAID],
        [Message(role="user", content=" \n{{ x }}{% if %} \n"), SAID],
    ],
    ids=len,
)  # fmt: skip
def test_the_chat_template_writes_the_same(words: Any, words_with_bos: Any, chat_format, messages):
    for tokenizer in (words, words_with_bos):
        renderer = Renderer(tokenizer, chat_format)
        text = _templated(tokenizer, chat_format, messages)
        (encoded,) = renderer.encode([messages])
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == encoded.ids.tolist()
        opened = _templated(tokenizer, chat_format, messages[:-1], add_generation_prompt=True)
        (prompt,) = renderer.encode_prompts([messages[:-1]])
        assert tokenizer(opened, add_special_tokens=False)["input_ids"] == prompt


def test_a_prompt_is_the_start_of_its_conversation(words: Any, words_with_bos: Any):
    for tokenizer in (words, words_with_bos):
        for chat_format in (ORCA, TURNS, HUMPBACK):
            renderer = Renderer(tokenizer, chat_format)
            (prompt,) = renderer.encode_prompts([[SYSTEM, USER]])
            (whole,) = renderer.encode([[SYSTEM, USER, SAID]])
            assert whole.ids.tolist()[: len(prompt)] == prompt
            assert int(whole.is_supervised.argmax()) == len(prompt)


def test_one_bos_where_the_tokenizer_wants_one(words: Any, words_with_bos: Any):
    (with_bos,) = Renderer(words_with_bos, ORCA).encode([[SYSTEM, USER, SAID, MORE, LAST]])
    bos = words_with_bos.bos_token_id
    assert with_bos.ids[0] == bos and (with_bos.ids == bos).sum() == 1
    (without,) = Renderer(words, TURNS).encode([[USER, SAID]])
    assert words.convert_ids_to_tokens(int(without.ids[0])) == "<|user|>"


def test_many_conversations_are_encoded_as_one_by_one(words: Any):
    renderer = Renderer(words, TURNS)
    conversations = [[USER, SAID], [SYSTEM, MORE, LAST], [USER, SAID, MORE, LAST]]
    alone = [renderer.encode([each])[0].ids.tolist() for each in conversations]
    assert [each.ids.tolist() for each in renderer.encode(conversations)] == alone
    assert renderer.encode([]) == [] and renderer.encode_text([]) == []


def test_decode_gives_the_response_back(words: Any):
    renderer = Renderer(words, TURNS)
    text = "caf\u00e9 \U0001f433\nend"
    (ids,) = renderer.encode_text([text])
    assert renderer.decode([*ids, renderer.end_id]) == text


def test_a_tokenizer_without_an_end_is_refused(words: Any):
    endless = copy.deepcopy(words)
    endless.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        Renderer(endless, TURNS)


@pytest.fixture(scope="module")
def llama(data_dir: Path) -> Any:
    return load_tokenizer(data_dir / "tok_llama2")


def test_llamas_tokenizer(llama: Any):
    renderer = Renderer(llama, ORCA)
    nasty = Message(role="assistant", content="<s> and </s> and <unk>")
    (encoded,) = renderer.encode([[SYSTEM, USER, nasty]])
    special = [i for i in encoded.ids.tolist() if i in llama.all_special_ids]
    assert llama.convert_ids_to_tokens(special) == ["<s>", "</s>"]
    assert encoded.ids[0] == llama.bos_token_id and encoded.ids[-1] == llama.eos_token_id
    targets = encoded.ids[encoded.is_supervised].tolist()
    assert renderer.decode(targets) == nasty.content


@pytest.mark.parametrize("chat_format", [ORCA, HUMPBACK], ids=["orca", "humpback"])
def test_other_tools_give_llama_the_same_ids(llama: Any, chat_format: BlockFormat):
    """Pieces begin as they do within the text, where the tokenizer puts a blank before a text."""
    for messages in ([USER, SAID], [SYSTEM, USER, SAID, MORE, LAST]):
        text = _templated(llama, chat_format, messages)
        (encoded,) = Renderer(llama, chat_format).encode([messages])
        assert encoded.ids.tolist() == llama(text, add_special_tokens=False)["input_ids"]


def test_llamas_vocabulary_grows_by_its_padding(data_dir: Path, tmp_path: Path):
    shape = NewModelConfig(hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1)
    tokenizer = Source(data_dir / "tok_llama2").open(tmp_path)
    made = new_model.run(tmp_path, shape, tokenizer=tokenizer)
    assert made.record.counts["vocabulary"] == 32_001
    saved = load_tokenizer(made.path)
    assert (len(saved), saved.pad_token, saved.pad_token_id) == (32_001, "[[PAD]]", 32_000)
    (ids,) = Renderer(saved, ORCA).encode_text(["[[PAD]]"])
    assert 32_000 not in ids
    plain = Renderer(load_tokenizer(data_dir / "tok_llama2"), ORCA)
    conversation = [[SYSTEM, USER, SAID]]
    assert Renderer(saved, ORCA).encode(conversation)[0].ids.tolist() == (
        plain.encode(conversation)[0].ids.tolist()
    )


def test_another_real_tokenizer(data_dir: Path):
    tokenizer = load_tokenizer(data_dir / "tok_qwen")
    renderer = Renderer(tokenizer, ORCA)
    text = f"a {tokenizer.eos_token} b"
    (encoded,) = renderer.encode([[USER, Message(role="assistant", content=text)]])
    ends = [i for i in encoded.ids.tolist() if i == renderer.end_id]
    assert len(ends) == 1 and encoded.ids[-1] == renderer.end_id
    assert renderer.decode(encoded.ids[encoded.is_supervised][:-1].tolist()) == text


def test_a_long_row_is_shown_as_the_tokenizer_writes_it(llama: Any):
    text = "\u00e9\U0001f40b a b " * 40
    ids = np.array(llama(text, add_special_tokens=False)["input_ids"], dtype=np.int32)
    shown = masked_row("r", ids, np.ones(len(ids), dtype=bool), Renderer(llama, ORCA))
    assert "".join(piece.text for piece in shown.pieces) == llama.decode(ids)
