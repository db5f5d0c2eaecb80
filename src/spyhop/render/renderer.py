"""Spans to ids and mask, with one tokenizer and one chat format."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spyhop.render.formats import FORMATS, BlockFormat, TextSpan, spans
from spyhop.render.template import (
    History,
    Template,
    TemplateFormat,
    Thinking,
    TrainOn,
    special_pattern,
)
from spyhop.schema import InputError, Message

ChatFormat = BlockFormat | TemplateFormat
FormatName = Literal["saved", "chat", "orca", "turns", "humpback"]
"""A chat format as a config names it: `saved` is the model folder's own, else its chat template,
else Orca's blocks; `chat` is the tokenizer's chat template; the others are ours."""
_ANCHORS = ("\n", "=", "\x01")
"""Put before a text that continues another, for tokenizers that begin every text with a blank."""
_CONTINUATIONS = ("a", " a", "\n", "\n\na", "  ", "1", "(")
_PROBE = [Message(role="user", content="Why?")]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and loss mask of one conversation, both (T,)."""

    ids: npt.NDArray[np.int32]
    is_supervised: npt.NDArray[np.bool_]


def named_format(name: str, tokenizer: Any) -> ChatFormat:  # noqa: ANN401 (transformers' type)
    """Return the format of that name; `chat` is the tokenizer's own chat template."""
    if name != "chat":
        return FORMATS[name]
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    if not template:
        known = ", ".join(FORMATS)
        raise InputError(f"{tokenizer.name_or_path}: no chat template; use one of {known}")
    return TemplateFormat(template=str(template))


def read_format(values: dict[str, Any]) -> ChatFormat:
    """Return the format that a checkpoint's file holds."""
    kind = TemplateFormat if "template" in values else BlockFormat
    return kind.model_validate(values)


class Renderer:
    """Turns conversations into ids with one tokenizer and one chat format.

    Guarantees (G4): a BOS is added if and only if the tokenizer wants one and the chat template
    writes none; every response that is trained on is supervised and so is its end token; nothing
    else is, except the text that a chat template has the model write before a response; content
    never turns into a special token. A prompt's ids are the first of its conversation's.

    Text is cut where generation begins and ends, and nowhere else; so the ids are those of the
    chat template as other tools read it, at training and at generation.

    Raises:
        InputError: If the tokenizer has no end token, or its chat template cannot be taken apart.
    """

    def __init__(self, tokenizer: Any, chat_format: ChatFormat) -> None:  # noqa: ANN401 (transformers' type)
        if tokenizer.eos_token_id is None:
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token"
            )
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        self.end_id = int(tokenizer.eos_token_id)
        self.special_ids = {
            *tokenizer.all_special_ids,
            *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special),
        }
        self._special = special_pattern(tokenizer)
        self._anchor = self._needed_anchor()
        self._is_anew_after_special = self._ids(f"{tokenizer.eos_token}a")[1:] == self._ids("a")
        """Whether the tokenizer treats text after a special token as a new sequence."""
        self._template = None
        self.bos_ids = self._document_bos = _wanted_bos(tokenizer)
        """The ids that are added before a conversation."""
        self._lead = ""
        """The text that the model writes before the content of a response."""
        if isinstance(chat_format, TemplateFormat):
            self.bos_ids = []  # other tools add none to a template's text
            self._template = Template(tokenizer, chat_format)
            self._examine(self._template)
        self._opening = self._prompt(_PROBE)[-1].text

    @property
    def has_thoughts(self) -> bool:
        """Whether the chat format has a place for a thought before a response."""
        return self._template is not None and self._template.has_thoughts

    def chat_template(self) -> str:
        """Return the format's Jinja template, with the BOS that this tokenizer wants."""
        return ("{{ bos_token }}" if self.bos_ids else "") + self.chat_format.chat_template()

    def encode(
        self,
        conversations: Sequence[Sequence[Message]],
        train_on: TrainOn = "all",
        thinking: Thinking = "keep",
    ) -> list[Encoded]:
        """Return ids and mask of whole conversations, up to the last supervised response.

        A conversation without one, or that the template does not write as it is, is an
        `InputError`.
        """
        found = self.encode_sequences(conversations, train_on, thinking)
        if not all(found):
            raise InputError("no response of the conversation is supervised")
        return [sequences[-1] for sequences in found]

    def encode_sequences(
        self,
        conversations: Sequence[Sequence[Message]],
        train_on: TrainOn = "all",
        thinking: Thinking = "keep",
        history: History = "last",
    ) -> list[list[Encoded]]:
        """Return the sequences that each conversation is trained on, tokenised in one call.

        There is one, or with `history = "split"` several, or none without a supervised turn.
        """
        found = [
            self._sequences(messages, train_on, thinking, history) for messages in conversations
        ]
        encoded = iter(self._encode([spans for sequences in found for spans in sequences]))
        return [[next(encoded) for _ in sequences] for sequences in found]

    def encode_prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Return the ids up to and including the mark that opens the next response."""
        prompts = [self._prompt(messages) for messages in conversations]
        return [encoded.ids.tolist() for encoded in self._encode(prompts)]

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of plain content as it follows the opening of a response."""
        lead = TextSpan(self._lead, is_mark=True, is_supervised=True)
        responses = [[lead, TextSpan(text, is_mark=False, is_supervised=True)] for text in texts]
        return [each.ids.tolist() for each in self._encode(responses, follows=self._opening)]

    def encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of whole documents without chat format, as other tools read them.

        They begin with a BOS if and only if the tokenizer wants one and the text has none yet.
        """
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        num = len(lead := self._document_bos)
        return [[*lead, *ids] if ids[:num] != lead else list(ids) for ids in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Return a response's text, without special tokens and outer blanks."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _sequences(
        self, messages: Sequence[Message], train_on: TrainOn, thinking: Thinking, history: History
    ) -> list[list[TextSpan]]:
        if self._template is not None:
            return self._template.sequences(
                messages, train_on=train_on, thinking=thinking, history=history
            )
        assert isinstance(self.chat_format, BlockFormat)
        trained = [
            n
            for n, turn in enumerate(messages)
            if turn.role == "assistant" and turn.is_trained is not False
        ]
        if not trained:
            return []
        chosen = trained if train_on == "all" else trained[-1:]
        turns, end = messages[: trained[-1] + 1], self.tokenizer.eos_token
        return [list(spans(turns, self.chat_format, end, chosen))]

    def _prompt(self, messages: Sequence[Message]) -> list[TextSpan]:
        if self._template is not None:
            return self._template.prompt(messages)
        assert isinstance(self.chat_format, BlockFormat)
        opening = TextSpan(self.chat_format.assistant, is_mark=True, is_supervised=False)
        return [*spans(messages, self.chat_format, self.tokenizer.eos_token), opening]

    def _examine(self, template: Template) -> None:
        """Learn the text before a response's content, its end token, and whether turns join."""
        turn = Message(role="assistant", content="So.")
        (found,) = template.sequences([*_PROBE, turn], train_on="last")
        response = [span for span in found if span.is_generated]
        self._lead = response[0].text if response[0].is_mark else ""
        self.end_id = self._tokens([(response[-1].text, False)])[0][-1]
        with suppress(InputError):  # does a later prompt have an earlier response's trained ids?
            messages = [*_PROBE, turn, *_PROBE, turn]
            (sequences,) = self.encode_sequences([messages])
            (prompt,) = self.encode_prompts([messages[:-1]])
            template.can_join = sequences[-1].ids[: len(prompt)].tolist() == prompt
            template.forget()

    def _encode(
        self, conversations: Sequence[Sequence[TextSpan]], follows: str = ""
    ) -> list[Encoded]:
        """Tokenise each part of a conversation as a separate text."""
        parts = [list(_parts(each)) for each in conversations]
        tokens = iter(self._part_tokens(parts, follows))
        encoded = []
        for own in parts:
            ids = [] if follows else list(self.bos_ids)
            mask = [False] * len(ids)
            for part in own:
                new = next(tokens)
                ids += new
                mask += [part[0].is_supervised] * len(new)
            encoded.append(Encoded(np.array(ids, dtype=np.int32), np.array(mask, dtype=np.bool_)))
        return encoded

    def _part_tokens(
        self, conversations: Sequence[Sequence[Sequence[TextSpan]]], follows: str
    ) -> list[list[int]]:
        """Return the ids of every part, in order."""
        plain: list[tuple[str, bool]] = []
        guarded: dict[int, list[int]] = {}
        num = 0
        for parts in conversations:
            before = follows
            for part in parts:
                text = "".join(span.text for span in part)
                is_fresh = self._is_fresh_after(before)
                marks = [span.text for span in part if span.is_mark]
                num_special = len(self._special.findall(text))
                if num_special == sum(len(self._special.findall(mark)) for mark in marks):
                    plain.append((text, is_fresh))
                else:
                    guarded[num] = self._guarded(part, is_fresh=is_fresh)
                before, num = text, num + 1
        whole = iter(self._tokens(plain))
        return [guarded[n] if n in guarded else next(whole) for n in range(num)]

    def _guarded(self, part: Sequence[TextSpan], *, is_fresh: bool) -> list[int]:
        """Return the ids of a part whose contents hold texts of special tokens, as plain text."""
        texts = [""]
        for span in part:
            end = 0
            for found in self._special.finditer(span.text) if span.is_mark else ():
                texts[-1] += span.text[end : found.start()]
                texts += [found[0], ""]
                end = found.end()
            texts[-1] += span.text[end:]
        ids: list[int] = []
        for place, text in enumerate(texts):
            if place % 2:
                ids.append(self.tokenizer.convert_tokens_to_ids(text))
                is_fresh = self._is_anew_after_special
            elif text:
                ids += self._tokens([(text, is_fresh)], split_special_tokens=True)[0]
                is_fresh = False
        return ids

    def _is_fresh_after(self, text: str) -> bool:
        """Whether the tokenizer treats the text that follows as the start of a text."""
        if not text:
            return self._is_anew_after_special or not self.bos_ids
        ends = [found.end() for found in self._special.finditer(text)]
        return self._is_anew_after_special and ends[-1:] == [len(text)]

    def _tokens(self, texts: Sequence[tuple[str, bool]], **more: bool) -> list[list[int]]:
        """Return the ids of texts, each with whether it is the start of a text."""
        if not texts:
            return []
        anchors = ["" if is_fresh else self._anchor for _, is_fresh in texts]
        encoded = self.tokenizer(
            [anchor + text for anchor, (text, _) in zip(anchors, texts, strict=True)],
            add_special_tokens=False, return_attention_mask=False, verbose=False, **more,
        )["input_ids"]  # fmt: skip
        skipped = len(self._ids(self._anchor)) if self._anchor else 0
        return [list(ids[skipped:] if a else ids) for a, ids in zip(anchors, encoded, strict=True)]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _needed_anchor(self) -> str:
        """Return the anchor if the tokenizer adds a space before every text."""
        for anchor in _ANCHORS:
            lead = self._ids(anchor)
            both = [self._ids(anchor + text) for text in _CONTINUATIONS]
            if both[0][: len(lead)] == lead and both[0][len(lead) :] == self._ids("a"):
                return ""
            if all(ids[: len(lead)] == lead for ids in both):
                return anchor
        return ""


def _parts(conversation: Sequence[TextSpan]) -> Iterator[list[TextSpan]]:
    """Yield stretches that are tokenised together: prompts, thoughts without loss, responses."""
    spans = (span for span in conversation if span.text)
    for _, part in groupby(spans, key=lambda span: (span.is_generated, span.is_supervised)):
        yield list(part)


def _wanted_bos(tokenizer: Any) -> list[int]:  # noqa: ANN401 (transformers' type)
    if tokenizer.bos_token_id is None:
        return []
    starts_with_bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if starts_with_bos or getattr(tokenizer, "add_bos_token", False):
        return [int(tokenizer.bos_token_id)]
    return []
