"""Segments to ids and mask, with one tokenizer and one chat format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spyhop.render.formats import FORMATS, BlockFormat, TextSpan, spans
from spyhop.render.template import Template, TemplateFormat
from spyhop.schema import InputError, Message

ChatFormat = BlockFormat | TemplateFormat
TrainOn = Literal["all", "last"]
"""Responses of a conversation that are supervised."""
FormatName = Literal["saved", "chat", "orca", "turns", "humpback"]
"""A format as a config names it: `saved` is the model folder's own, else its chat template, else
Orca's blocks; `chat` the tokenizer's chat template; the others are ours."""
_ANCHOR = "\n"
"""Tokenised before a text that continues another, where the tokenizer would begin it anew."""
_PROBE = (
    [
        Message(role="user", content="Why?"),
        Message(role="assistant", content="So."),
        Message(role="user", content="And then?"),
    ],
    [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Why?"),
    ],
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and loss mask of one conversation, both (T,)."""

    ids: npt.NDArray[np.int32]
    is_supervised: npt.NDArray[np.bool_]


def named_format(name: str, tokenizer: Any) -> ChatFormat:  # noqa: ANN401 (transformers' type)
    """Return the format of that name; `chat` is the tokenizer's own chat template.

    Raises:
        InputError: If the tokenizer has no template.
    """
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

    Guarantees (G4): one BOS if and only if the tokenizer wants one; every response that is trained
    on is a target and so is the end token after it; nothing else is, save what a chat template has
    the model write before a response; content never turns into a special token. A prompt's ids are
    the first of its conversation's.

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
        self._bos = _wanted_bos(tokenizer)
        self._marks: dict[tuple[str, bool], list[int]] = {}
        added = tokenizer.added_tokens_decoder.items()
        self.special_ids = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        self._anchor = ""
        self._anchor = self._needed_anchor()
        self._is_anew_after_special = self._begins_anew(tokenizer.eos_token)
        self._template = (
            Template(tokenizer, chat_format) if isinstance(chat_format, TemplateFormat) else None
        )
        self._lead = ""
        """What the model writes before the content of a response."""
        if self._template is not None:
            self._examine(self._template)
        self._opening = _joined(self._prompt(_PROBE[0][:1]), tokenizer.eos_token)[-1].text

    def chat_template(self) -> str:
        """Return the format's Jinja template, with the BOS that this tokenizer wants."""
        bos = "{{ bos_token }}" if self._bos and self._template is None else ""
        return bos + self.chat_format.chat_template()

    def encode(
        self, conversations: Sequence[Sequence[Message]], train_on: TrainOn = "all"
    ) -> list[Encoded]:
        """Return ids and mask of whole conversations, tokenised in one call.

        What a template writes after the last response's end is left out.

        Raises:
            InputError: If the chat template does not write a conversation as it is.
        """
        return self._encode([self._spans(each, train_on) for each in conversations])

    def encode_prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Return the ids up to and including the mark that opens the next response.

        Raises:
            InputError: If the chat template does not write a conversation as it is.
        """
        pieces = [self._prompt(messages) for messages in conversations]
        return [encoded.ids.tolist() for encoded in self._encode(pieces)]

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of plain content as it follows the opening of a response."""
        lead = TextSpan(self._lead, is_mark=True, is_supervised=True)
        pieces = [[lead, TextSpan(text, is_mark=False, is_supervised=True)] for text in texts]
        return [encoded.ids.tolist() for encoded in self._encode(pieces, follows=self._opening)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return a response's text, without special tokens and outer blanks."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _spans(self, messages: Sequence[Message], train_on: TrainOn) -> list[TextSpan]:
        said = [number for number, each in enumerate(messages) if each.role == "assistant"]
        trained = said if train_on == "all" else said[-1:]
        if self._template is not None:
            found = self._template.spans(messages, trained=trained)
            is_over = bool(messages) and messages[-1].role == "assistant"
            while is_over and not found[-1].is_supervised:
                found.pop()
            return found
        assert isinstance(self.chat_format, BlockFormat)
        found, number = [], 0
        for piece in spans(messages, self.chat_format):
            if not piece.is_supervised:
                found.append(piece)
                continue
            is_supervised = said[number] in trained
            number += 1
            found.append(replace(piece, is_supervised=is_supervised))
            found.append(
                TextSpan(self.tokenizer.eos_token, is_mark=True, is_supervised=is_supervised)
            )
        return found

    def _prompt(self, messages: Sequence[Message]) -> list[TextSpan]:
        if self._template is not None:
            return self._template.spans(messages, is_prompt=True)
        assert isinstance(self.chat_format, BlockFormat)
        opening = TextSpan(self.chat_format.assistant, is_mark=True, is_supervised=False)
        return [*self._spans(messages, "all"), opening]

    def _examine(self, template: Template) -> None:
        """Learn what opens and ends a response; compare with the template's text as a whole.

        Raises:
            InputError: If the ids are not those of the whole text.
        """
        asked = _PROBE[0]
        response = [s for s in template.spans(asked[:2], trained=[1]) if s.is_supervised]
        self._lead = response[0].text if response[0].is_mark else ""
        self.end_id = self._mark(response[-1].text, is_fresh=False)[-1]
        bos = self.tokenizer.bos_token
        if bos and template.spans(asked)[0].text.startswith(bos):
            self._bos = []
        for pieces in (
            template.spans(asked),
            template.spans(asked, trained=[1], is_prompt=True),
            template.spans(_PROBE[1], is_prompt=True),
        ):
            ids = self._encode([pieces])[0].ids.tolist()[len(self._bos) :]
            text = "".join(piece.text for piece in pieces)
            whole = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if ids != whole:
                raise InputError(
                    f"{self.tokenizer.name_or_path}: the chat template cannot be tokenised in "
                    f"pieces: {self.tokenizer.convert_ids_to_tokens(ids)} is not "
                    f"{self.tokenizer.convert_ids_to_tokens(whole)}; use format = 'orca'"
                )

    def _encode(
        self, conversations: Sequence[Sequence[TextSpan]], follows: str = ""
    ) -> list[Encoded]:
        joined = [_joined(pieces, self.tokenizer.eos_token) for pieces in conversations]
        fresh = [self._freshness(pieces, follows) for pieces in joined]
        contents = [
            (piece.text, is_fresh)
            for pieces, places in zip(joined, fresh, strict=True)
            for piece, is_fresh in zip(pieces, places, strict=True)
            if not piece.is_mark
        ]
        found = iter(self._content(contents))
        encoded = []
        for pieces, places in zip(joined, fresh, strict=True):
            ids = [] if follows else list(self._bos)
            is_supervised = [False] * len(ids)
            for piece, is_fresh in zip(pieces, places, strict=True):
                new = self._mark(piece.text, is_fresh=is_fresh) if piece.is_mark else next(found)
                ids += new
                is_supervised += [piece.is_supervised] * len(new)
            encoded.append(
                Encoded(np.array(ids, dtype=np.int32), np.array(is_supervised, dtype=np.bool_))
            )
        return encoded

    def _freshness(self, pieces: Sequence[TextSpan], follows: str) -> list[bool]:
        """Tell for each piece whether the tokenizer takes it for the start of a text."""
        found = []
        is_fresh = self._is_fresh_after(follows) if follows or self._bos else True
        for piece in pieces:
            found.append(is_fresh)
            is_fresh = piece.is_mark and self._is_fresh_after(piece.text)
        return found

    def _is_fresh_after(self, mark: str) -> bool:
        ids = self._mark(mark, is_fresh=False) or self._bos
        return self._is_anew_after_special and ids[-1] in self.special_ids

    def _mark(self, text: str, *, is_fresh: bool) -> list[int]:
        key = (text, is_fresh)
        if key not in self._marks:
            anchor = "" if is_fresh else self._anchor
            options = {"add_special_tokens": False, "verbose": False}
            ids = self.tokenizer(anchor + text, **options)["input_ids"] if text else []
            lead = self.tokenizer(anchor, **options)["input_ids"] if anchor else []
            self._marks[key] = list(ids[len(lead) :]) if text else []
        return self._marks[key]

    def _content(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        if not texts:
            return []
        anchors = ["" if is_fresh else self._anchor for _, is_fresh in texts]
        encoded = self.tokenizer(
            [anchor + text for anchor, (text, _) in zip(anchors, texts, strict=True)],
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        skipped = len(self._mark(self._anchor, is_fresh=True))
        pairs = zip(anchors, encoded, strict=True)
        return [list(ids[skipped:]) if anchor else list(ids) for anchor, ids in pairs]

    def _begins_anew(self, special: str) -> bool:
        """Return whether the tokenizer treats text after a special token as a new sequence."""
        alone, both = (self._mark(text, is_fresh=True) for text in ("a", f"{special}a"))
        return both[1:] == alone

    def _needed_anchor(self) -> str:
        """Return the anchor if the tokenizer begins every text with a blank of its own."""
        alone, lead, both = (
            self._mark(text, is_fresh=True) for text in ("a", _ANCHOR, f"{_ANCHOR}a")
        )
        return _ANCHOR if both[: len(lead)] == lead and both[len(lead) :] != alone else ""


def _joined(pieces: Sequence[TextSpan], end: str) -> list[TextSpan]:
    """Join marks that meet, and let the blank before a content be its own, as tokenizers do."""
    found: list[TextSpan] = []
    for piece in pieces:
        if not piece.text:
            continue
        before = found[-1] if found else None
        if before is None or not before.is_mark or before.is_supervised != piece.is_supervised:
            found.append(piece)
        elif piece.is_mark and end not in (before.text, piece.text):
            found[-1] = replace(before, text=before.text + piece.text)
        elif not piece.is_mark and before.text.endswith(" "):
            found.pop()
            if rest := before.text[:-1]:
                found.append(replace(before, text=rest))
            found.append(replace(piece, text=f" {piece.text}"))
        else:
            found.append(piece)
    return found


def _wanted_bos(tokenizer: Any) -> list[int]:  # noqa: ANN401 (transformers' type)
    if tokenizer.bos_token_id is None:
        return []
    starts_with_bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if starts_with_bos or getattr(tokenizer, "add_bos_token", False):
        return [int(tokenizer.bos_token_id)]
    return []
