"""Keep some of several answers to a prompt: all, the right ones, those of the majority, or one.

Source of the majority: self-consistency (arXiv:2203.11171), over the answers that responses state.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

from spyhop.collect.messages import with_thought
from spyhop.models import Reply
from spyhop.schema import Answer, Config, InputError, Message, NoConfig, Preference
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, row_id
from spyhop.text.gold import is_right, stated

Keep = Literal["all", "verified", "majority", "shortest", "likely"]


class PickConfig(Config):
    """Which of the answers to a prompt are kept."""

    keep: Keep = "verified"
    """`all`: every whole answer. `verified`: those that state the gold answer. `majority`: those
    that state what most of them state (of equal numbers, what is stated first). `shortest`: the
    shortest verified one. `likely`: the one with the highest log-probability, for which
    `sampling.log_probability` must be set."""


@stage(
    version=1,
    writes=Answer,
    plan=lambda config, answers: Estimate(rows=answers.rows, row_tokens=answers.row_tokens),
)
def pick_answers(ctx: Context, config: PickConfig, *, answers: Artifact) -> Iterator[Answer]:
    """Yield the kept answers, in order; samples of a prompt follow one another, as in `answer`.

    Dropped: `not_whole`, `wrong` (also answers that cannot be read, or have no gold answer),
    `minority`, `longer`, `less_likely`, `no_log_probability`.

    Counts: `prompts` and `prompts/kept`; `checked` and `right`, kept answers with a gold answer and
    those that state it; `asked/prompt_tokens` and `asked/response_tokens` of all answers.

    Raises:
        InputError: If `likely` finds no log-probability in any row.
    """
    is_scored = config.keep != "likely"
    rows = ctx.track(answers.rows(Answer), "choosing", total=answers.num_rows)
    for _, samples in groupby(rows, key=_prompt_id):
        group = list(samples)
        reasons = _reasons(config.keep, group)
        ctx.count("prompts")
        ctx.count("prompts/kept", int("" in reasons))
        for row, reason in zip(group, reasons, strict=True):
            count_asked(ctx, row)
            is_scored = is_scored or row.log_probability is not None
            if reason:
                ctx.drop(row, reason)
                continue
            yield count_kept(ctx, row)
    if not is_scored:
        raise InputError(
            f"{answers.name}: no answer has a log-probability; set sampling.log_probability = true "
            "for the answers, if their teacher gives it"
        )


@stage(
    version=1,
    writes=Answer,
    plan=lambda config, answers, pairs: Estimate(rows=pairs.rows, row_tokens=answers.row_tokens),
)
def keep_chosen(
    ctx: Context, config: NoConfig, *, answers: Artifact, pairs: Artifact
) -> Iterator[Answer]:
    """Yield the answers that preference pairs chose, in order: the control of training on pairs.

    Others are dropped (`not_chosen`). Counts as `pick_answers`, `asked` of all answers.
    """
    chosen = {_text_id(pair.messages, pair.chosen) for pair in pairs.rows(Preference)}
    for row in ctx.track(answers.rows(Answer), "choosing", total=answers.num_rows):
        count_asked(ctx, row)
        ctx.count("prompts", int(not row.sample_index))
        *prompt, said = row.messages
        found = _text_id(prompt, with_thought(said, row.reasoning))
        if found not in chosen:
            ctx.drop(row, "not_chosen")
            continue
        chosen.remove(found)
        ctx.count("prompts/kept")
        yield count_kept(ctx, row)


def _text_id(prompt: Sequence[Message], response: str) -> str:
    return row_id(*(part for turn in prompt for part in (turn.role, turn.content)), response)


def count_asked(ctx: Context, answer: Answer | Reply) -> None:
    """Count what an answer cost its teacher."""
    ctx.count("asked/prompt_tokens", answer.prompt_tokens)
    ctx.count("asked/response_tokens", answer.response_tokens)


def count_kept(ctx: Context, row: Answer) -> Answer:
    """Count a kept answer, and whether it is right."""
    ctx.count("checked", int(bool(row.target)))
    ctx.count("right", int(_is_right(row)))
    return row


def _prompt_id(row: Answer) -> str:
    return row.id.removesuffix(f".{row.sample_index}") if row.sample_index else row.id


def _reasons(keep: Keep, rows: Sequence[Answer]) -> list[str]:
    """Return why each of the answers to one prompt is dropped; empty for those that are kept."""
    reasons = ["" if row.ending == "whole" else "not_whole" for row in rows]
    found = list(zip(rows, reasons, strict=True))
    if keep in ("verified", "shortest"):
        reasons = [reason or ("" if _is_right(row) else "wrong") for row, reason in found]
    if keep == "majority":
        said = [None if reason else stated(row.messages[-1].content, row.messages[-2].content)
                for row, reason in found]  # fmt: skip
        ((most, _),) = Counter(each for each in said if each is not None).most_common(1) or [
            ("", 0)
        ]
        reasons = [reason or ("" if each == most else "minority")
                   for each, reason in zip(said, reasons, strict=True)]  # fmt: skip
    if keep == "likely":
        reasons = [reason or ("no_log_probability" if row.log_probability is None else "")
                   for row, reason in found]  # fmt: skip
    if keep in ("shortest", "likely"):
        left = [place for place, reason in enumerate(reasons) if not reason]
        best = min(left, key=lambda place: _length(keep, rows[place]), default=None)
        worse = "longer" if keep == "shortest" else "less_likely"
        reasons = [reason or ("" if place == best else worse)
                   for place, reason in enumerate(reasons)]  # fmt: skip
    return reasons


def _length(keep: Keep, row: Answer) -> float:
    """Return the length of a response: in characters, or in nats."""
    return len(row.messages[-1].content) if keep == "shortest" else -(row.log_probability or 0.0)


def _is_right(row: Answer) -> bool:
    *_, question, response = row.messages
    return bool(row.target and is_right(response.content, question.content, row.target))
