"""Does an instruction fit its own text? Humpback's first assumption, measured.

From the instruction that was written for a text, its own text is picked among texts that are near
it, by likelihood. An instruction that fits any text on the subject picks at random.

Source: Humpback (arXiv:2308.06259), section 2: some segments are answers to instructions that can
be written for them.
"""

from collections.abc import Iterator
from heapq import nsmallest

import numpy as np
from pydantic import Field

from spyhop.models import Model, Request
from spyhop.schema import Config, Pair, Score, prompt_turns
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.statistics.linear import features
from spyhop.store import Artifact, number_of

SUITE, METRIC = "round_trip", "acc_mutual_info"
TEXT_CHARS = 1000
"""Characters from the beginning of a text that are scored."""
BASELINE = "Write a text."
"""An instruction without content. What a text is likelier under its own instruction than under this
one decides, since some texts are likely under any."""


class RoundTripConfig(Config):
    """Which texts are compared."""

    num_rows: int = Field(200, ge=1)
    """Instructions that are tested, drawn by hash."""
    num_near: int = Field(4, ge=1)
    """Other texts that each text is picked among: those that share most of its words."""
    pool: int = Field(5000, ge=2)
    """Texts among which the near ones are looked for, drawn by hash."""


def plan_round_trip(config: RoundTripConfig, pairs: Estimate, model: Estimate) -> Estimate:
    """Two calls for each text of each instruction."""
    rows = min(config.num_rows, pairs.rows)
    requests = 2 * rows * (1 + config.num_near)
    calls = Calls(requests=requests, prompt_tokens=round(requests * TEXT_CHARS / CHARS_PER_TOKEN))
    return Estimate(rows=rows, calls={"model": calls})


@stage(version=1, writes=Score, plan=plan_round_trip)
def round_trip(
    ctx: Context, config: RoundTripConfig, *, pairs: Artifact, model: Model
) -> Iterator[Score]:
    """Yield one row per instruction: whether its own text has the highest gain in likelihood.

    `metrics` also hold the plain sum of log-probabilities (`acc`).
    Where there are fewer other texts than `num_near`, all of them are compared; no row without any.
    """
    texts: dict[str, Pair] = {}
    for row in pairs.rows(Pair):
        texts.setdefault(row.response[:TEXT_CHARS], row)
    rows = nsmallest(config.pool, texts.values(), key=lambda row: number_of(f"round trip/{row.id}"))
    shown = [row.response[:TEXT_CHARS] for row in rows]
    near = _near(shown, config)
    requests = [
        Request(
            id=f"{place}/{other}/{kind}", messages=prompt_turns(asked), continuation=shown[other]
        )
        for place, others in enumerate(near)
        for other in (place, *others)
        for kind, asked in enumerate((rows[place].instruction, BASELINE))
    ]
    found = model.logprobs(requests, total=len(requests))
    for place, others in enumerate(near):
        taken = [(next(found), next(found)) for _ in (place, *others)]
        errors = [each.error for both in taken for each in both if each.error is not None]
        own = np.array([sum(both[0].values) for both in taken])
        values = {"acc": own, METRIC: own - [sum(both[1].values) for both in taken]}
        # The place of the highest value; a tie is not for the own text, which is the first.
        picks = {n: len(each) - 1 - int(each[::-1].argmax()) for n, each in values.items()}
        yield Score(
            id=rows[place].id, suite=SUITE, task=SUITE, target=rows[place].id,
            passage=rows[place].origin, chance=1 / (1 + len(others)),
            response="", response_tokens=0, finish_reason="likelihood",
            extracted=None if errors else rows[(place, *others)[picks[METRIC]]].id,
            correct=not errors and picks[METRIC] == 0, metric=METRIC,
            metrics={name: float(not errors and pick == 0) for name, pick in picks.items()},
            error=errors[0] if errors else None, ending="failed" if errors else "whole",
        )  # fmt: skip


def _near(texts: list[str], config: RoundTripConfig) -> list[list[int]]:
    """Return the places of the texts nearest to each of the first ones, by shared words."""
    matrix, most = features(texts), min(config.num_near, len(texts) - 1)
    found: list[list[int]] = []
    for place in range(min(config.num_rows, len(texts)) if len(texts) > 1 else 0):
        likeness = (matrix @ matrix[place].T).toarray()[:, 0]
        likeness[place] = -1
        found.append(np.argsort(-likeness, kind="stable")[:most].tolist())
    return found
