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

from spyhop.evaluate.linear import features
from spyhop.models import Model, Request
from spyhop.schema import Config, InputError, Pair, Score, prompt_turns
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact, number_of

SUITE = "round_trip"


class RoundTripConfig(Config):
    """Which texts are compared."""

    num_rows: int = Field(200, ge=1)
    """Instructions that are tested, drawn by hash."""
    num_near: int = Field(4, ge=1)
    """Other texts that each text is picked among: those that share most of its words."""
    pool: int = Field(5000, ge=2)
    """Texts among which the near ones are looked for, drawn by hash."""
    text_chars: int = Field(1000, ge=50)
    """Characters from the beginning of a text that are scored."""
    system_message: str = ""
    baseline: str = "Write a text."
    """Instruction without content. What a text is likelier under its own instruction than under
    this one decides, since some texts are likely under any."""


def plan_round_trip(config: RoundTripConfig, pairs: Estimate, model: Estimate) -> Estimate:
    """Two calls for each text of each instruction."""
    rows = min(config.num_rows, pairs.rows)
    requests = 2 * rows * (1 + config.num_near)
    tokens = round(requests * config.text_chars / CHARS_PER_TOKEN)
    calls = Calls(
        requests=requests, prompt_tokens=tokens, response_tokens=0, most_response_tokens=0
    )
    return Estimate(rows=rows, calls={"model": calls})


@stage(version=1, writes=Score, plan=plan_round_trip)
def round_trip(
    ctx: Context, config: RoundTripConfig, *, pairs: Artifact, model: Model
) -> Iterator[Score]:
    """Yield one row per instruction: whether its own text has the highest gain in likelihood.

    `metrics` also hold the plain sum of log-probabilities (`acc`) and their mean (`acc_token`).

    Raises:
        InputError: If there are not enough different texts.
    """
    texts: dict[str, Pair] = {}
    for row in pairs.rows(Pair):
        texts.setdefault(row.response[: config.text_chars], row)
    rows = nsmallest(config.pool, texts.values(), key=lambda row: number_of(f"round trip/{row.id}"))
    if len(rows) <= config.num_near:
        raise InputError(f"{pairs.name}: {len(rows)} texts; {config.num_near + 1} are needed")
    shown = [row.response[: config.text_chars] for row in rows]
    near = _near(shown, config)
    requests = [
        Request(
            id=f"{place}/{other}/{kind}",
            messages=prompt_turns(asked, config.system_message),
            continuation=shown[other],
        )
        for place, others in enumerate(near)
        for other in (place, *others)
        for kind, asked in enumerate((rows[place].instruction, config.baseline))
    ]
    found = model.logprobs(requests, total=len(requests))
    for place, others in enumerate(near):
        taken = [(next(found), next(found)) for _ in (place, *others)]
        errors = [each.error for both in taken for each in both if each.error is not None]
        plain = np.array([sum(own.values) for own, _ in taken])
        gain = plain - [sum(bare.values) for _, bare in taken]
        token = [own.mean for own, _ in taken]
        values = {"acc": plain, "acc_token": np.array(token), "acc_mutual_info": gain}
        picks = {name: _pick(each) for name, each in values.items()}
        best = picks["acc_mutual_info"]
        is_right = not errors and best == 0
        ctx.count("correct", int(is_right))
        yield Score(
            id=rows[place].id,
            suite=SUITE,
            task=SUITE,
            response="",
            extracted=None if errors else rows[(place, *others)[best]].id,
            correct=is_right,
            target=rows[place].id,
            chance=1 / (1 + config.num_near),
            finish_reason="likelihood",
            error=errors[0] if errors else None,
            ending="failed" if errors else "whole",
            response_tokens=0,
            metric="acc_mutual_info",
            metrics={name: float(not errors and pick == 0) for name, pick in picks.items()},
            passage=rows[place].origin,
        )


def _pick(values: np.ndarray) -> int:
    """Return the place of the highest value; a tie is not for the own text, which is the first."""
    return len(values) - 1 - int(values[::-1].argmax())


def _near(texts: list[str], config: RoundTripConfig) -> list[list[int]]:
    """Return the places of the texts nearest to each of the first ones, by shared words."""
    matrix = features(texts)
    found = []
    for place in range(min(config.num_rows, len(texts))):
        likeness = (matrix @ matrix[place].T).toarray()[:, 0]
        likeness[place] = -1
        found.append(np.argsort(-likeness, kind="stable")[: config.num_near].tolist())
    return found
