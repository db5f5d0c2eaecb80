"""Keep part of the answers: some of several to a prompt, or those under some system messages.

Source of the majority: self-consistency (arXiv:2203.11171), over the answers that responses state.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from itertools import groupby
from typing import Literal

from pydantic import Field

from spyhop.collect.messages import with_thought
from spyhop.models import Reply
from spyhop.schema import Answer, Config, InputError, Message, NoConfig, Preference, Prompt
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, number_of, row_id
from spyhop.text.gold import is_right, stated

Keep = Literal["all", "verified", "majority", "shortest", "likely"]


class PickConfig(Config):
    """Which of the answers to a prompt are kept."""

    keep: Keep = "verified"
    """`all`: every whole answer. `verified`: those that state the gold answer. `majority`: those
    that state what most of them state (of equal numbers, what is stated first). `shortest`: the
    shortest verified one. `likely`: the one with the highest log-probability, for which
    `sampling.log_probability` must be set."""


@stage(version=1, writes=Answer, plan=lambda config, answers: sum_estimates([answers]))
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
    said = [
        stated(row.messages[-1].content, row.messages[-2].content)
        if keep == "majority" and row.ending == "whole"
        else None
        for row in rows
    ]
    votes = Counter(answer for answer in said if answer is not None).most_common(1)
    reasons = [""] * len(rows)
    for place, (row, answer) in enumerate(zip(rows, said, strict=True)):
        if row.ending != "whole":
            reasons[place] = "not_whole"
        elif keep in ("verified", "shortest") and not _is_right(row):
            reasons[place] = "wrong"
        elif keep == "majority" and [answer] != [most for most, _ in votes]:
            reasons[place] = "minority"
        elif keep == "likely" and row.log_probability is None:
            reasons[place] = "no_log_probability"
    left = [place for place, reason in enumerate(reasons) if not reason]
    if keep == "shortest":
        for place in sorted(left, key=lambda n: len(rows[n].messages[-1].content))[1:]:
            reasons[place] = "longer"
    if keep == "likely":
        for place in sorted(left, key=lambda n: -(rows[n].log_probability or 0.0))[1:]:
            reasons[place] = "less_likely"
    return reasons


def _is_right(row: Answer) -> bool:
    *_, question, response = row.messages
    return bool(row.target and is_right(response.content, question.content, row.target))


class FilterAnswersConfig(Config):
    """Which answers to keep."""

    system_ids: tuple[str, ...] = ()
    """Keep answers under these system messages; empty keeps all."""
    every_nth: int = Field(1, ge=1)
    """Keep 1/n of the rows, by the hash of the query's id; a larger share contains a smaller."""
    tasks_nth: int = Field(1, ge=1, exclude_if=lambda value: value == 1)
    """Keep the rows of 1/n of the tasks, by the hash of the task's name."""
    num_rows: int | None = Field(None, ge=1)
    """Keep exactly this many of the matching rows, drawn by hash; a larger number contains a
    smaller one. Default: all."""
    seed: int = 0


@stage(
    version=2,
    writes=Answer,
    plan=lambda config, answers, like=None: Estimate(
        rows=min(
            answers.rows // config.every_nth // config.tasks_nth, config.num_rows or answers.rows
        ),
        row_tokens=answers.row_tokens,
    ),
)
def filter_answers(
    ctx: Context, config: FilterAnswersConfig, *, answers: Artifact, like: Artifact | None = None
) -> Iterator[Answer]:
    """Yield the matching answers, in order. Failed rows do not count towards an exact number.

    With `like`, only answers to the queries of its prompts match.
    """
    known = None if like is None else {prompt.query_id for prompt in like.rows(Prompt)}
    drawn: set[int] | None = None
    if config.num_rows is not None:
        levels = {
            place: _level(config.seed, f"{row.query_id}/{row.id}")
            for place, row in enumerate(answers.rows(Answer))
            if _matches(config, row) and row.ending == "whole"
        }
        if len(levels) < config.num_rows:
            raise InputError(
                f"{answers.name}: {len(levels):,} whole rows, fewer than num_rows = "
                f"{config.num_rows:,}"
            )
        drawn = set(nsmallest(config.num_rows, levels, key=levels.__getitem__))
    rows = ctx.track(answers.rows(Answer), "choosing", total=answers.num_rows)
    for place, row in enumerate(rows):
        is_known = known is None or row.query_id in known
        if is_known and (place in drawn if drawn is not None else _matches(config, row)):
            yield row


def _matches(config: FilterAnswersConfig, row: Answer) -> bool:
    is_meant = not config.system_ids or row.system_id in config.system_ids
    is_meant &= _level(config.seed, f"{row.collection}/{row.task}") * config.tasks_nth < 1
    return is_meant and _level(config.seed, row.query_id) * config.every_nth < 1


def _level(seed: int, name: str) -> float:
    return number_of(f"{seed}/part/{name}") / 2**64
