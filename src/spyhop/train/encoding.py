"""Training rows with their token ids and loss masks.

Training, `spyhop show --mask` and reports all use this module. Training also writes a sample of its
rows beside the weights, so that a report shows the masks without a tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spyhop.models.folder import read_config
from spyhop.render import Encoded, History, Renderer, Thinking, TrainOn
from spyhop.schema import Answer, InputError, Message, Preference, Prompt, TrainingError
from spyhop.train.config import DivergenceConfig, TuneConfig

SAMPLE = "masked_rows.jsonl"
"""In a training's artifact: the first rows that it trained on, with their masks."""
SAMPLE_ROWS = 3
_WINDOW = 16
"""Tokens that are decoded together: enough for any character and its leading space."""
_UNFINISHED = "\ufffd"
_THOUGHT = re.compile(r"\A<think>\n.*?\n</think>\n\n", re.DOTALL)
"""The thought before a response of a preference."""
PAIR = {"chosen", "rejected"}
"""Columns of preferences; other rows are answers."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows become ids and masks."""

    renderer: Renderer
    max_tokens: int
    train_on: TrainOn = "all"
    thinking: Thinking = "keep"
    history: History = "last"
    response_tokens: int = 0
    """Above 0, rows are prompts whose response the student writes, of up to so many tokens."""
    context: tuple[Message, ...] = ()
    """Turns that the teacher alone reads before such a prompt; a system message among them takes
    the place of the prompt's own."""


def encoding_of(renderer: Renderer, base: Path, config: TuneConfig) -> Encoding:
    """Return how a training encodes its rows; none is longer than the base's context."""
    shape = read_config(base).get_text_config()
    longest = min(config.max_tokens, getattr(shape, "max_position_embeddings", 0) or 1 << 30)
    own = Encoding(renderer, longest, config.train_on, config.thinking, config.history)
    if not isinstance(how := config.objective, DivergenceConfig):
        return own
    context = [Message(role="system", content=how.system)] if how.system else []
    for asked, said in how.shots:
        context += [Message(role="user", content=asked), Message(role="assistant", content=said)]
    return replace(own, response_tokens=how.max_new_tokens, context=tuple(context))


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row as training sees it: ids and masks, or the reason why it is not trained on."""

    row: Answer | Preference | Prompt
    sequences: Sequence[Encoded] = ()
    """One sequence; several if a template rewrites history and the row is split."""
    reason: str = ""
    detail: str = ""
    """The chat template's error, if that is the reason."""
    split: int = 0
    """Of a pair, whose sequence is both conversations end to end: tokens of the chosen one; of a
    prompt that the teacher's follows: tokens of the student's."""


class Piece(NamedTuple):
    """The text that one token adds to a row."""

    text: str
    is_supervised: bool
    is_special: bool


class MaskedRow(NamedTuple):
    """A row that is trained on, token by token, for people to read."""

    row_id: str
    pieces: list[Piece]

    @property
    def num_supervised(self) -> int:
        """Number of tokens that the loss is taken on."""
        return sum(piece.is_supervised for piece in self.pieces)


def reason_to_skip(row: Answer) -> str:
    """Return the reason to skip a row before it is tokenised; empty if there is none.

    Only whole replies are trained on; for other replies the reason is their ending.
    """
    if row.ending != "whole":
        return row.ending
    has_response = bool(row.messages) and row.messages[-1].role == "assistant"
    return "" if has_response and row.messages[-1].content.strip() else "empty"


def training_rows(encoding: Encoding, rows: Sequence[Answer]) -> list[TrainingRow]:
    """Return the rows in order, each with ids and masks or the reason why it is not trained on.

    Reasons are those of `reason_to_skip`, `unsupervised` (every response has weight 0), `template`
    (the chat template does not render the row unchanged) and `too_long` (a sequence has more than
    `max_tokens`: a response is never cut).

    Raises:
        TrainingError: If a row violates G4 (one BOS, supervised tokens, end token).
    """
    usable = [row for row in rows if not reason_to_skip(row)]
    encoded = iter(_encode(encoding, usable))
    found = []
    for row in rows:
        reason = reason_to_skip(row)
        made = TrainingRow(row, reason=reason) if reason else next(encoded)
        if any(len(each.ids) > encoding.max_tokens for each in made.sequences):
            made = TrainingRow(row, reason="too_long")
        for each in made.sequences:
            check_row(row, each, encoding.renderer)
        found.append(made)
    return found


def encode_rows(encoding: Encoding, rows: Sequence[Mapping[str, Any]]) -> list[TrainingRow]:
    """Return the rows of a table, answers, preferences or prompts, as training reads them."""
    if encoding.response_tokens:
        return [_prompt_row(encoding, row) for row in rows]
    if rows and rows[0].keys() >= PAIR:
        return preference_rows(encoding, [Preference.model_validate(row) for row in rows])
    return training_rows(encoding, [Answer.model_validate(row) for row in rows])


def preference_rows(encoding: Encoding, pairs: Sequence[Preference]) -> list[TrainingRow]:
    """Return the pairs in order: the chosen conversation, then the rejected one; or the reason.

    Both responses are supervised, earlier ones are context. A pair is skipped where one of its
    conversations would be, for its reason. Thoughts go where the format has no place for them.
    """
    has_thoughts = encoding.renderer.has_thoughts
    sides = [
        Answer(
            id=pair.id, query_id="", collection="", task="", system_id="", model="",
            messages=[
                *pair.messages,
                Message(role="assistant", content=text if has_thoughts else _THOUGHT.sub("", text)),
            ],
            finish_reason="stop",
        )
        for pair in pairs
        for text in (pair.chosen, pair.rejected)
    ]  # fmt: skip
    made = training_rows(replace(encoding, train_on="last", history="last"), sides)
    found = []
    for pair, chosen, rejected in zip(pairs, made[::2], made[1::2], strict=True):
        if reason := chosen.reason or rejected.reason:
            found.append(TrainingRow(pair, (), reason, chosen.detail or rejected.detail))
            continue
        (one,), (two,) = chosen.sequences, rejected.sequences
        ids = np.concatenate([one.ids, two.ids])
        mask = np.concatenate([one.is_supervised, two.is_supervised])
        found.append(TrainingRow(pair, (Encoded(ids, mask),), split=len(one.ids)))
    return found


def _prompt_row(encoding: Encoding, values: Mapping[str, Any]) -> TrainingRow:
    """Return a row's prompt, of an answer without its last response, or why it is not used.

    Where the teacher reads a context, its prompt follows the student's. A prompt is `too_long`
    where the longest response would not fit behind it.
    """
    row = Prompt.model_validate({name: values[name] for name in Prompt.model_fields})
    turns = row.messages
    turns = turns[:-1] if turns and turns[-1].role == "assistant" else turns
    if not turns:
        return TrainingRow(row, reason="empty")
    asked = [turns]
    if context := encoding.context:
        has_system = context[0].role == "system" and turns[0].role == "system"
        asked.append([*context, *turns[has_system:]])
    try:
        prompts = encoding.renderer.encode_prompts(asked)
    except InputError as error:
        return TrainingRow(row, reason="template", detail=str(error))
    if max(map(len, prompts)) + encoding.response_tokens > encoding.max_tokens:
        return TrainingRow(row, reason="too_long")
    ids = np.concatenate([np.array(each, dtype=np.int32) for each in prompts])
    split = len(prompts[0]) if context else 0
    return TrainingRow(row, (Encoded(ids, np.zeros(len(ids), np.bool_)),), split=split)


def check_row(row: Answer, encoded: Encoded, renderer: Renderer) -> None:
    """Refuse a row that violates G4, and show it.

    Raises:
        TrainingError: If BOS is repeated, no token is supervised, or the end token is not.
    """
    num = len(renderer.bos_ids)
    has_bos = encoded.ids[:num].tolist() == renderer.bos_ids
    is_doubled = num > 0 and encoded.ids[num : 2 * num].tolist() == renderer.bos_ids
    is_whole = bool(encoded.is_supervised[-1]) and int(encoded.ids[-1]) == renderer.end_id
    num_supervised = int(encoded.is_supervised.sum())
    if has_bos and not is_doubled and is_whole and num_supervised >= 2:
        return
    raise TrainingError(
        f"row {row.id} cannot be trained on: begins with one BOS: {has_bos and not is_doubled}, "
        f"{num_supervised} supervised tokens, end token supervised: {is_whole}; "
        f"{row.messages[-1].role} said {row.messages[-1].content!r:.80}"
    )


def masked_row(
    row_id: str,
    ids: npt.NDArray[np.int32],
    is_supervised: npt.NDArray[np.bool_],
    renderer: Renderer,
) -> MaskedRow:
    """Return a row's tokens as text, each with its value in the mask."""
    tokens = zip(_token_texts(renderer.tokenizer, ids.tolist()), ids, is_supervised, strict=True)
    pieces = [Piece(text, bool(flag), int(n) in renderer.special_ids) for text, n, flag in tokens]
    return MaskedRow(row_id, pieces)


def write_sample(folder: Path, rows: Sequence[MaskedRow]) -> None:
    """Write rows beside the weights that were trained on them."""
    lines = [json.dumps({"id": row.row_id, "pieces": row.pieces}) + "\n" for row in rows]
    (folder / SAMPLE).write_text("".join(lines), encoding="utf-8")


def read_sample(folder: Path) -> list[MaskedRow]:
    """Return the rows that a training wrote; artifacts of older versions have none."""
    if not (folder / SAMPLE).is_file():
        return []
    values = map(json.loads, (folder / SAMPLE).read_text(encoding="utf-8").splitlines())
    return [MaskedRow(row["id"], [Piece(*piece) for piece in row["pieces"]]) for row in values]


def _encode(encoding: Encoding, rows: Sequence[Answer]) -> list[TrainingRow]:
    """Encode rows together; where the chat template refuses one, each half by itself.

    The reply's own reasoning is its last turn's, if the format has a place for it.
    """
    if not rows:
        return []
    turns = []
    for row in rows:
        *before, last = row.messages
        if row.reasoning and not last.reasoning and encoding.renderer.has_thoughts:
            last = last.model_copy(update={"reasoning": row.reasoning})
        turns.append([*before, last])
    try:
        encoded = encoding.renderer.encode_sequences(
            turns, encoding.train_on, encoding.thinking, encoding.history
        )
    except InputError as error:
        if len(rows) == 1:
            return [TrainingRow(rows[0], reason="template", detail=str(error))]
        half = len(rows) // 2
        return [*_encode(encoding, rows[:half]), *_encode(encoding, rows[half:])]
    return [
        TrainingRow(row, each, "" if each else "unsupervised")
        for row, each in zip(rows, encoded, strict=True)
    ]


def _token_texts(tokenizer: Any, ids: list[int]) -> Iterator[str]:  # noqa: ANN401 (transformers' type)
    """Yield what each token adds to the text; a character of several tokens comes with its last."""
    start, shown = 0, ""
    for stop in range(1, len(ids) + 1):
        text = str(tokenizer.decode(ids[start:stop], skip_special_tokens=False))
        if text.endswith(_UNFINISHED) and stop < len(ids):
            yield ""
            continue
        yield text[len(shown) :]
        shown = text
        if stop - start >= _WINDOW:
            start = stop - 1
            shown = str(tokenizer.decode(ids[start:stop], skip_special_tokens=False))
