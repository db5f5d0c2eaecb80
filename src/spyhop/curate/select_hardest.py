"""Select the teacher's prompts: those that the teaching assistant found hard.

Source: Orca (arXiv:2306.02707), section 3: the assistant answers all prompts, the teacher a
subset of them. The paper draws it at random (`collect.draw_subset`); this draws the hard ones.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from spyhop.schema import Answer, Config, InputError, Prompt
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, number_of
from spyhop.text.gold import is_right, stated

Floats = npt.NDArray[np.float64]
UNSAID = 0
"""Hash of an answer that cannot be read."""
NAMES = {
    "wrong": ("right", "wrong"),
    "disagreement": ("agreed", "split"),
    "confidence": ("known", "known"),
}
"""Names in the counts of prompts with hardness 0, and above 0."""


class SelectHardestConfig(Config):
    """Measure of hardness, and how many prompts to keep."""

    by: Literal["wrong", "disagreement", "confidence"] = "wrong"
    """`wrong`: share of the assistant's samples that do not state the gold answer. `disagreement`:
    share that differs from the prompt's most frequent answer; needs several samples per prompt.
    `confidence`: negative mean log-probability per token."""
    num_rows: int = Field(gt=0)
    """Number of rows to keep; all if there are fewer."""
    seed: int = 0
    """Seed of the sample among equally hard prompts."""


@stage(
    version=2,
    writes=Prompt,
    plan=lambda config, prompts, answers: Estimate(
        rows=min(config.num_rows, prompts.rows), row_tokens=prompts.row_tokens
    ),
)
def select_hardest(
    ctx: Context, config: SelectHardestConfig, *, prompts: Artifact, answers: Mapping[str, Artifact]
) -> Iterator[Prompt]:
    """Keep the prompts that the assistant found hardest, in the order of the input.

    Equally hard prompts are sampled by a hash of (seed, id), as in `draw_subset`, so a larger
    subset contains a smaller one. A response without a readable answer (also if cut, refused or
    empty) counts as wrong, and agrees with no other sample. A failed call is ignored. Prompts of
    unknown hardness (no answer, failed calls only, no gold answer if `by` is `wrong`) rank last.
    Some 40 bytes a row in memory.

    Counts: `kept/<group>` and `left/<group>` for the groups `wrong` and `right`, `split` and
    `agreed`, or `known`, and `unknown`; `samples/failed`, `samples/no_gold`, and `samples/foreign`
    for answers to other prompts.
    """
    places = _PromptIndex((row.id for row in prompts.rows(Prompt)), config.seed)
    hardness = _hardness(ctx, config, places, answers)[places.of_row]
    if len(places) and np.isneginf(hardness).all():
        raise InputError(
            f"by = {config.by!r}: no answer measures the hardness of these prompts: "
            f"{ctx.counts['samples/failed']} failed, {ctx.counts['samples/no_gold']} have no gold "
            f"answer, {ctx.counts['samples/foreign']} answer other prompts"
            + ("; set num_samples to 2 or more" if config.by == "disagreement" else "")
        )
    is_kept = np.zeros(len(hardness), dtype=np.bool_)
    is_kept[np.lexsort((places.draws, -hardness))[: config.num_rows]] = True
    rows = ctx.track(prompts.rows(Prompt), "choosing", total=len(hardness))
    for row, kept, value in zip(rows, is_kept, hardness, strict=True):
        what = "unknown" if np.isneginf(value) else NAMES[config.by][int(value > 0)]
        ctx.count(f"{'kept' if kept else 'left'}/{what}")
        if kept:
            yield row


class _PromptIndex:
    """Prompts by the hash of their id; rows with equal ids share an index."""

    def __init__(self, ids: Iterable[str], seed: int) -> None:
        hashes, draws = array("Q"), array("Q")
        for name in ids:
            hashes.append(number_of(name))
            draws.append(number_of(f"{seed}/{name}"))
        known = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
        self._known, self.of_row = known
        self.draws = np.array(draws, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, answer: Answer) -> int | None:
        """Return the index of an answer's prompt; the id of a further sample ends in its number."""
        stem = answer.id
        if answer.sample_index:
            stem = answer.id.removesuffix(f".{answer.sample_index}")
        for name in (stem, answer.id):
            wanted = np.uint64(number_of(name))
            place = int(np.searchsorted(self._known, wanted))
            if place < len(self) and self._known[place] == wanted:
                return place
        return None


def _hardness(
    ctx: Context, config: SelectHardestConfig, places: _PromptIndex, answers: Mapping[str, Artifact]
) -> Floats:
    """Return the hardness of the prompt at each index; minus infinity if unknown."""
    where = array("q")
    measures: array[Any] = array("Q" if config.by == "disagreement" else "d")
    for artifact in answers.values():
        for row in ctx.track(artifact.rows(Answer), "reading", total=artifact.num_rows):
            place = places.find(row)
            if place is None:
                ctx.count("samples/foreign")
            elif row.error is not None or not row.messages or row.messages[-1].role != "assistant":
                ctx.count("samples/failed")
            elif config.by == "wrong" and not row.target:
                ctx.count("samples/no_gold")
            else:
                where.append(place)
                measures.append(_MEASURES[config.by](row))
    samples = np.array(where, dtype=np.int64)
    num_samples = np.bincount(samples, minlength=len(places))
    if config.by == "disagreement":
        num_agreed = _most_frequent(samples, np.array(measures, dtype=np.uint64), len(places))
        is_known, total = num_samples > 1, num_samples - num_agreed
    else:
        weights = np.array(measures, dtype=np.float64)
        is_known = num_samples > 0
        total = np.bincount(samples, weights=weights, minlength=len(places))
    shares = total / np.maximum(num_samples, 1)
    return np.where(is_known, shares, -np.inf)


def _most_frequent(
    places: npt.NDArray[np.int64], said: npt.NDArray[np.uint64], num_places: int
) -> npt.NDArray[np.int64]:
    """Return how many samples at each index give its most frequent answer."""
    is_said = said != UNSAID
    order = np.lexsort((said[is_said], places[is_said]))
    places, said = places[is_said][order], said[is_said][order]
    is_first = np.ones(len(places), dtype=np.bool_)
    is_first[1:] = (places[1:] != places[:-1]) | (said[1:] != said[:-1])
    starts = np.flatnonzero(is_first)
    most = np.zeros(num_places, dtype=np.int64)
    np.maximum.at(most, places[starts], np.diff(starts, append=len(places)))
    return most


def _wrong(row: Answer) -> float:
    return float(not is_right(_response(row), _question(row), row.target))


def _said(row: Answer) -> int:
    answer = stated(_response(row), _question(row), row.target)
    return UNSAID if answer is None else number_of(answer)


def _surprise(row: Answer) -> float:
    if row.log_probability is None:
        raise InputError(
            f"answer {row.id} has no log-probability: set sampling.log_probability = true for "
            f"{row.model} (if its endpoint returns them), or choose another `by`"
        )
    return -row.log_probability / max(1, row.response_tokens)


_MEASURES: dict[str, Callable[[Answer], float]] = {
    "wrong": _wrong,
    "disagreement": _said,
    "confidence": _surprise,
}


def _response(row: Answer) -> str:
    return row.messages[-1].content if row.ending == "whole" else ""


def _question(row: Answer) -> str:
    return next((turn.content for turn in row.messages[-2:-1]), "")
