"""Rows to token ids on disk: memory-mapped, checked, with every dropped row counted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from spyhop.render import Encoded, Renderer
from spyhop.schema import Answer, TrainingError
from spyhop.stage import Context
from spyhop.store import Artifact

CHUNK = 512
"""Rows that are tokenised in one call."""


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Tokenised rows of several inputs, one after the other.

    `ids` (total tokens,) int32 and `is_target` (total tokens,) bool are memory-mapped; row r
    stands at `starts[r]:starts[r + 1]`; input i holds the rows `inputs[i]:inputs[i + 1]`.
    """

    ids: npt.NDArray[np.int32]
    is_target: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    inputs: list[int]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.starts)


def tokenise(
    ctx: Context, answers: Sequence[Artifact], renderer: Renderer, max_tokens: int
) -> TokenRows:
    """Tokenise the answers that can be trained on; the others are dropped and counted.

    Dropped: failed calls (`error`), responses that were cut (`cut`) or are `empty`, and rows
    longer than `max_tokens` (`too_long`): a response is never cut.

    Raises:
        TrainingError: If a row breaks G4 (one BOS, targets, end token), or no row is left.
    """
    ids_path, mask_path = ctx.state / "ids.bin", ctx.state / "is_target.bin"
    starts, inputs = [0], [0]
    with ids_path.open("wb") as ids_file, mask_path.open("wb") as mask_file:
        for artifact in answers:
            rows = ctx.track(artifact.rows(Answer), "tokenising", total=artifact.num_rows)
            for row, encoded in _encoded(ctx, rows, renderer):
                if len(encoded.ids) > max_tokens:
                    ctx.drop(row, "too_long")
                    continue
                check_row(row, encoded, renderer)
                encoded.ids.tofile(ids_file)
                encoded.is_target.tofile(mask_file)
                starts.append(starts[-1] + len(encoded.ids))
            inputs.append(len(starts) - 1)
    if len(starts) == 1:
        reasons = ", ".join(f"{name}: {num}" for name, num in sorted(ctx.dropped.items()))
        raise TrainingError(f"no row is left to train on (dropped: {reasons or 'none'})")
    ctx.count("rows/trained", len(starts) - 1)
    return TokenRows(
        ids=np.memmap(ids_path, dtype=np.int32, mode="r"),
        is_target=np.memmap(mask_path, dtype=np.bool_, mode="r"),
        starts=np.array(starts),
        inputs=inputs,
    )


def check_row(row: Answer, encoded: Encoded, renderer: Renderer) -> None:
    """Refuse a row that breaks G4, showing it.

    Raises:
        TrainingError: If BOS is repeated, nothing is a target, or the end token is not.
    """
    bos = renderer.tokenizer.bos_token_id
    num_bos = int((encoded.ids == bos).sum()) if bos is not None else 0
    is_whole = bool(encoded.is_target[-1]) and int(encoded.ids[-1]) == renderer.end_id
    if num_bos <= 1 and is_whole and int(encoded.is_target.sum()) >= 2:
        return
    raise TrainingError(
        f"row {row.id} cannot be trained on: {num_bos} BOS tokens, "
        f"{int(encoded.is_target.sum())} target tokens, ends with a target end token: {is_whole}; "
        f"{row.messages[-1].role} said {row.messages[-1].content!r:.80}"
    )


def _encoded(
    ctx: Context, rows: Iterator[Answer], renderer: Renderer
) -> Iterator[tuple[Answer, Encoded]]:
    while chunk := list(islice(rows, CHUNK)):
        kept = []
        for row in chunk:
            if reason := _defect(row):
                ctx.drop(row, reason)
            else:
                kept.append(row)
        yield from zip(kept, renderer.encode([row.messages for row in kept]), strict=True)


def _defect(row: Answer) -> str | None:
    if row.error is not None:
        return "error"
    if row.finish_reason == "length":
        return "cut"
    if not row.messages or row.messages[-1].role != "assistant":
        return "no_response"
    return None if row.messages[-1].content.strip() else "empty"
