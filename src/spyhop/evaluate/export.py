"""Scores as rows of a file, one per item and sample; stored responses are read again here."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from spyhop.evaluate.asking import cue_of, read_fields, user_turn
from spyhop.evaluate.measure import MeasureConfig
from spyhop.evaluate.task import Protocol
from spyhop.schema import InputError, Item, RecipeError, Score
from spyhop.settings import validated
from spyhop.store import Artifact, Artifacts, atomic_write, rows_of


def joined(items: Artifacts, scores: Artifact) -> Iterator[tuple[Item, Score]]:
    """Yield each score with its item; scores are in the order of the items."""
    rows = scores.rows(Score)
    score = next(rows, None)
    for item in rows_of(items, Item):
        while score is not None and score.id == item.id:
            yield item, score
            score = next(rows, None)
    if score is not None:
        raise InputError(f"{scores}: the item {score.id} of {score.task} is not among the items")


def score_rows(model: str, items: Artifacts, scores: Artifact) -> Iterator[dict[str, Any]]:
    """Yield the rows of `scores-NAME.jsonl`, in the order of the items."""
    config = MeasureConfig.model_validate(scores.record.config)
    for item, score in joined(items, scores):
        yield score_row(model, item, score, config.protocol(item.suite))


def score_row(model: str, item: Item, score: Score, protocol: Protocol) -> dict[str, Any]:
    """Return a score as a row, with what was asked.

    `item_digest` is the content that two runs are joined by: the SHA-256 of question, options and
    gold answer, without cue and worked examples. `prompt_digest` covers everything that was sent.
    """
    shown = item.continuations or [item.question]  # which has the options' texts in it
    cue = cue_of(item, protocol) if protocol.form == "prefilled" else ""
    sent = [protocol.system_message, user_turn(item, protocol), cue, item.contexts]
    return {
        **score.model_dump(),
        "model": model,
        "question": user_turn(item, protocol),
        "options": item.continuations or item.options,
        "system_message": protocol.system_message,
        "max_new_tokens": protocol.sampling.max_new_tokens,
        "item_digest": _digest([item.text or item.question, shown, item.target]),
        "prompt_digest": _digest([protocol.form == "plain", *sent]),
    }


def write_scores(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows as JSON lines; an existing file is replaced whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _digest(content: list[Any]) -> str:
    return sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rescored:
    """A stored score, and the reading that the extractor of now gives of the same response."""

    item: Item
    protocol: Protocol
    before: Score
    after: Score

    @property
    def is_changed(self) -> bool:
        """Whether the answer, the verdict or the score differs."""
        one, other = self.before, self.after
        return any(getattr(one, name) != getattr(other, name) for name in _COMPARED)


READ_BY = ("extract", "metric", "filters")
"""Settings that change how a response is read."""
_COMPARED = ("extracted", "correct", "value")


def rescore(items: Artifacts, scores: Artifact, changes: Mapping[str, Any]) -> Iterator[Rescored]:
    """Yield every score with its new reading; scored options have no response to read.

    A change that is unknown, or would change what was asked, is an error.
    """
    if asked := sorted(changes.keys() & Protocol.model_fields.keys() - set(READ_BY)):
        raise RecipeError(
            f"measure.{asked[0]}: the responses are stored, and it changes what is asked; "
            f"a new reading can change {', '.join(READ_BY)}"
        )
    stored = MeasureConfig.model_validate(scores.record.config)
    for item, score in joined(items, scores):
        own = stored.protocol(item.suite)
        given = own.model_dump() | dict(changes)
        protocol = validated(Path("--set"), Protocol, given, "measure.", {})
        after = score
        if own.method == "generate" and own.metric != "toxicity":
            fields = read_fields(score.response, score.ending, item, protocol)
            after = score.model_copy(update=fields)
        yield Rescored(item, protocol, score, after)
