"""The one answer to "what is trained on": rows, token ids and loss masks.

Training, `spyhop show --mask` and pages ask here. Training also writes a sample of its rows beside
the weights, so that a page shows the masks without a tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spyhop.render import Encoded, Renderer, TrainOn
from spyhop.schema import Answer, InputError, TrainingError

SAMPLE = "masked_rows.jsonl"
"""In a training's artifact: the first rows that it trained on, with their masks."""
SAMPLE_ROWS = 3
_WINDOW = 16
"""Tokens that are decoded together: enough for any character and its leading blank."""
_UNFINISHED = "\ufffd"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows become ids and masks."""

    renderer: Renderer
    max_tokens: int
    train_on: TrainOn = "all"


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row as training sees it: its ids and mask, or the reason why it is not trained on."""

    row: Answer
    encoded: Encoded | None
    reason: str = ""
    detail: str = ""
    """The chat template's refusal, where that is the reason."""


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
    """Return why a row is not trained on, whatever its tokens are; empty where it can be.

    Only whole replies are trained on; the reason of the others is how they ended.
    """
    if row.ending != "whole":
        return row.ending
    has_response = bool(row.messages) and row.messages[-1].role == "assistant"
    return "" if has_response and row.messages[-1].content.strip() else "empty"


def training_rows(encoding: Encoding, rows: Sequence[Answer]) -> list[TrainingRow]:
    """Return the rows in order, each with its ids and mask or the reason why it is not trained on.

    Reasons are those of `reason_to_skip`, `template` (the chat template does not write the row as
    it is) and `too_long` (more than `max_tokens`: a response is never cut).

    Raises:
        TrainingError: If a row breaks G4 (one BOS, supervised tokens, end token).
    """
    reasons = [reason_to_skip(row) for row in rows]
    usable = [row for row, reason in zip(rows, reasons, strict=True) if not reason]
    encoded = iter(_encode(encoding, usable))
    found = []
    for row, reason in zip(rows, reasons, strict=True):
        made = TrainingRow(row, None, reason) if reason else next(encoded)
        if made.encoded is not None and len(made.encoded.ids) > encoding.max_tokens:
            made = TrainingRow(row, None, "too_long")
        elif made.encoded is not None:
            check_row(row, made.encoded, encoding.renderer)
        found.append(made)
    return found


def check_row(row: Answer, encoded: Encoded, renderer: Renderer) -> None:
    """Refuse a row that breaks G4, showing it.

    Raises:
        TrainingError: If BOS is repeated, no token is supervised, or the end token is not.
    """
    bos = renderer.tokenizer.bos_token_id
    num_bos = int((encoded.ids == bos).sum()) if bos is not None else 0
    is_whole = bool(encoded.is_supervised[-1]) and int(encoded.ids[-1]) == renderer.end_id
    num_supervised = int(encoded.is_supervised.sum())
    if num_bos <= 1 and is_whole and num_supervised >= 2:
        return
    raise TrainingError(
        f"row {row.id} cannot be trained on: {num_bos} BOS tokens, {num_supervised} supervised "
        f"tokens, end token supervised: {is_whole}; "
        f"{row.messages[-1].role} said {row.messages[-1].content!r:.80}"
    )


def masked_row(
    row_id: str,
    ids: npt.NDArray[np.int32],
    is_supervised: npt.NDArray[np.bool_],
    renderer: Renderer,
) -> MaskedRow:
    """Return a row's tokens as text, each with its place in the mask."""
    texts = _token_texts(renderer.tokenizer, ids.tolist())
    pieces = [
        Piece(text, bool(flag), token in renderer.special_ids)
        for text, token, flag in zip(texts, ids.tolist(), is_supervised, strict=True)
    ]
    return MaskedRow(row_id, pieces)


def write_sample(folder: Path, rows: Sequence[MaskedRow]) -> None:
    """Write rows beside the weights that were trained on them."""
    lines = [json.dumps({"id": row.row_id, "pieces": row.pieces}) + "\n" for row in rows]
    (folder / SAMPLE).write_text("".join(lines), encoding="utf-8")


def read_sample(folder: Path) -> list[MaskedRow]:
    """Return the rows that a training wrote; an artifact of older code has none."""
    if not (folder / SAMPLE).is_file():
        return []
    lines = (folder / SAMPLE).read_text(encoding="utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    return [MaskedRow(row["id"], [Piece(*piece) for piece in row["pieces"]]) for row in values]


def _encode(encoding: Encoding, rows: Sequence[Answer]) -> list[TrainingRow]:
    """Encode rows together; where the chat template refuses one, each half by itself."""
    if not rows:
        return []
    try:
        encoded = encoding.renderer.encode([row.messages for row in rows], encoding.train_on)
    except InputError as error:
        if len(rows) == 1:
            return [TrainingRow(rows[0], None, "template", str(error))]
        half = len(rows) // 2
        return [*_encode(encoding, rows[:half]), *_encode(encoding, rows[half:])]
    return [TrainingRow(row, each) for row, each in zip(rows, encoded, strict=True)]


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
