"""On-policy data with any teacher: the student answers, and the teacher corrects what is wrong.

A correction begins at the first wrong step, so the student learns from states that it reaches by
itself, and the teacher writes few tokens.
"""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from spyhop.augment.answer import RESPONSE_TOKENS, Finished, answer_row, finish
from spyhop.augment.pick import count_asked, count_kept
from spyhop.models import Model, Sampling
from spyhop.models.script import Ask, Script
from spyhop.schema import Answer, Config, Message, Prompt
from spyhop.stage import Calls, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.text.gold import is_right
from spyhop.text.tables import table

KEEP, RIGHT = "KEEP:", "RIGHT"
WRONG_FRAC = 0.5
"""Planning figure: share of the student's answers that a teacher must correct."""
SPENT = "asked/response_tokens"


class CorrectConfig(Config):
    """Sampling of student and teacher, and the teacher's prompt."""

    student_sampling: Sampling = Sampling()
    """Sampling of the student's answers."""
    sampling: Sampling = Sampling()
    """Sampling of the corrections."""
    correct: str = table("augment/prompts.toml")["correct"]["correct"]
    """The teacher's user turn below a student's answer. Its reply is RIGHT; or a line of KEEP: and
    the last right step, then the rest of the answer; or a whole new answer."""
    right: Literal["keep", "drop"] = "keep"
    """Whether right answers of the student are rows, too."""


def plan_correct(
    config: CorrectConfig, prompts: Estimate, student: Estimate, teacher: Estimate
) -> Estimate:
    """One answer of the student per prompt; the teacher corrects `WRONG_FRAC`, at most all."""
    rows, rooms = prompts.rows, (config.student_sampling, config.sampling)
    own, fixed = (min(RESPONSE_TOKENS, room.max_new_tokens) for room in rooms)
    num = round(rows * WRONG_FRAC)
    read, most_read = prompts.row_tokens + own, prompts.row_tokens + rooms[0].max_new_tokens
    calls = {
        "student": Calls(
            requests=rows, prompt_tokens=round(rows * prompts.row_tokens),
            response_tokens=rows * own, most_response_tokens=rows * rooms[0].max_new_tokens,
        ),
        "teacher": Calls(
            requests=num, prompt_tokens=round(num * read), response_tokens=num * fixed,
            most_response_tokens=rows * rooms[1].max_new_tokens,
            further_prompt_tokens=round(rows * most_read - num * read),
        ),
    }  # fmt: skip
    return Estimate(rows=rows, row_tokens=read, calls=calls)


@stage(version=3, writes=Answer, plan=plan_correct)
def correct_answers(
    ctx: Context, config: CorrectConfig, *, prompts: Artifact, student: Model, teacher: Model
) -> Iterator[Answer]:
    """Yield one row per prompt, in order: the student's answer, or the teacher's correction of it.

    With a gold answer, only wrong answers go to the teacher, and what is wrong after its correction
    is dropped (`wrong`); without one, the teacher reads every answer. Outcomes: `own`, `continued`
    (the student's text up to its first wrong step, then the teacher's), `rewritten` (the teacher's
    text alone). Also dropped: `own` if the config says so, corrections that are not whole, and
    `lost` ones, whose right step is not, or not only once, in the answer. `model` is who wrote the
    end; the student's answer is the `transcript` of a correction.

    Counts: `ending/<ending>`, `outcome/<outcome>`, and as `pick_answers`, of the teacher's replies.
    """
    scripts = (_correct(ctx, config, each, student, teacher) for each in prompts.rows(Prompt))
    for row in finish(ctx, scripts, teacher, student):
        ctx.count("prompts/kept")
        yield count_kept(ctx, row) if row.error is None else row


def _correct(
    ctx: Context, config: CorrectConfig, prompt: Prompt, student: Model, teacher: Model
) -> Script[Finished]:
    ctx.count("prompts")
    question, drops = prompt.messages[-1].content, config.right == "drop"
    (own,) = yield [Ask(student, prompt.messages, config.student_sampling)]
    is_known = own.ending == "whole" and is_right(own.text, question, prompt.target)
    if own.error is not None or (prompt.target and is_known):
        row = answer_row(prompt, own, student.label, outcome="" if own.error else "own")
        return Finished(row, drop="own" if drops and not own.error else "")
    said = Message(role="assistant", content=own.text)
    turns = [*prompt.messages, said, Message(role="user", content=config.correct)]
    (reply,) = yield [Ask(teacher, turns, config.sampling)]
    count_asked(ctx, reply)
    if reply.ending != "whole":
        drop = "" if reply.error else reply.ending
        return Finished(answer_row(prompt, reply, teacher.label), drop=drop)
    text, outcome = corrected(own.text, reply.text)
    label = student.label if outcome == "own" else teacher.label
    whole = reply.model_copy(update={"text": text})
    drop = outcome if outcome == "lost" or (outcome == "own" and drops) else ""
    if prompt.target and not is_right(text, question, prompt.target):
        drop = drop or "wrong"
    row = answer_row(prompt, whole, label, outcome=outcome, transcript=[said])
    return Finished(row, drop=drop)


def corrected(own: str, reply: str) -> tuple[str, str]:
    """Return the answer that a correction makes of the student's, and its outcome."""
    reply = reply.strip()
    if reply.rstrip(".").upper() == RIGHT:
        return own, "own"
    first, _, rest = reply.partition("\n")
    words = first.removeprefix(KEEP).split()
    if not first.startswith(KEEP) or not words:
        return (rest.strip() if first.startswith(KEEP) else reply), "rewritten"
    places = list(re.finditer(r"\s+".join(map(re.escape, words)), own))
    if len(places) != 1:
        return reply, "lost"
    end = places[0].end()
    space = re.match(r"\s*", own[end:])
    return own[:end] + ((space and space[0]) or " ") + rest.strip(), "continued"


class MatchConfig(Config):
    """How many of a teacher's tokens to take."""

    times: float = Field(1.0, gt=0)
    """Multiple of the tokens that the corrections took."""


@stage(version=1, writes=Answer, plan=lambda config, answers, like: sum_estimates([answers]))
def match_tokens(
    ctx: Context, config: MatchConfig, *, answers: Artifact, like: Artifact
) -> Iterator[Answer]:
    """Yield a teacher's answers in order, for as many written tokens as corrections (`like`) took.

    Counts as `pick_answers`. Fewer answers than that are taken with a note.
    """
    left = config.times * like.record.counts.get(SPENT, 0)
    for row in answers.rows(Answer):
        left -= row.response_tokens
        if left < 0:
            return
        ctx.count("prompts")
        ctx.count("prompts/kept")
        count_asked(ctx, row)
        yield count_kept(ctx, row) if row.error is None else row
    ctx.notice(f"all answers are taken: {left:,.0f} of the teacher's tokens fewer than asked for")
