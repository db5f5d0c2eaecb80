"""A dialogue over each draft: the assistant objects, and the teacher revises its answer."""

import math
from collections.abc import Iterator, Sequence
from operator import mul
from typing import Annotated

from pydantic import Field

from spyhop.augment.answer import PROMPT_TOKENS, RESPONSE_TOKENS, answer_row
from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Answer, Config, Message, Prompt, Role, prompt_turns
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.gold import read, stated
from spyhop.text.tables import table
from spyhop.text.template import fill, places
from spyhop.text.verdict import verdict_word, without_verdict

OBJECTION_FRAC = 0.3
"""Planning figure: share of answers that the assistant objects to, in each turn."""
OBJECTION_TOKENS = 60
"""Planning figure for an assistant's turn."""

PROMPTS: dict[str, str] = table("augment/prompts.toml")["discuss"]


class DialogueConfig(Config):
    """Prompts and length of the dialogue. Prompts are whole texts; `{...}` are replaced."""

    sampling: Sampling = Sampling()
    """Sampling of the teacher."""
    assistant_sampling: Sampling = Sampling()
    """Sampling of the assistant."""
    max_turns: int = Field(2, ge=1)
    """Maximum number of answers that the assistant reads; each objection gets a revision."""
    critic: str = PROMPTS["critic"]
    """The assistant's system message."""
    question: Annotated[str, places("task", "answer")] = PROMPTS["question"]
    """The assistant's first user turn, with `{task}` and `{answer}`."""
    question_revised: Annotated[str, places("answer")] = PROMPTS["question_revised"]
    """The assistant's user turn for a revised `{answer}`."""
    revise: Annotated[str, places("objection")] = PROMPTS["revise"]
    """The teacher's user turn for an `{objection}`. It must request a complete answer, since the
    answer is trained on without the dialogue."""


def plan_discuss(
    config: DialogueConfig, prompts: Estimate, teacher: Estimate, assistant: Estimate
) -> Estimate:
    """Include drafts, the answers that the assistant reads, and a revision per objection."""
    rows, turns = prompts.rows, range(config.max_turns)
    num_asked = [math.ceil(rows * OBJECTION_FRAC**turn) for turn in range(config.max_turns + 1)]
    num_read, num_revised = num_asked[:-1], num_asked[1:]
    asked = prompts.row_tokens or PROMPT_TOKENS
    rooms = config.sampling.max_new_tokens, config.assistant_sampling.max_new_tokens
    written = min(RESPONSE_TOKENS, rooms[0]), min(OBJECTION_TOKENS, rooms[1])
    told = (len(config.critic) + len(config.question)) / CHARS_PER_TOKEN
    revising = len(config.revise) / CHARS_PER_TOKEN

    def prompt_tokens(answer: int, objection: int) -> list[list[float]]:
        """Return the prompt tokens of every turn, for the teacher and for the assistant."""
        to_teacher = [asked + (n + 1) * (answer + objection + revising) for n in turns]
        return [to_teacher, [asked + told + answer + n * (answer + objection) for n in turns]]

    expected, longest = prompt_tokens(*written), prompt_tokens(*rooms)
    calls: dict[str, Calls] = {}
    for name, num_first, nums in (("teacher", rows, num_revised), ("assistant", 0, num_read)):
        place, num = len(calls), num_first + sum(nums)
        tokens = sum(map(mul, nums, expected[place]))
        calls[name] = Calls(
            requests=num,
            prompt_tokens=round(num_first * asked + tokens),
            response_tokens=num * written[place],
            most_response_tokens=(num_first + rows * config.max_turns) * rooms[place],
            further_prompt_tokens=round(rows * sum(longest[place]) - tokens),
        )
    return Estimate(rows=rows, row_tokens=asked + written[0], calls=calls)


@stage(version=2, writes=Answer, plan=plan_discuss)
def discuss(
    ctx: Context, config: DialogueConfig, *, prompts: Artifact, teacher: Model, assistant: Model
) -> Iterator[Answer]:
    """Yield one row per prompt, in order: the prompt with the teacher's last whole answer.

    The dialogue ends when the assistant is satisfied, its verdict is missing, or it has read
    `max_turns` answers. It also ends when a call fails or a revision is not whole; the answer
    before it is final then. A draft that is not whole is not discussed. `transcript` contains every
    turn from the draft on, the teacher's as `assistant`, the assistant's as `user`.

    Outcomes compare the answers stated in the draft and at the end: `same` or `changed`; with a
    gold answer also `fixed` (only the final answer is right) and `harmed` (only the draft is).

    Counts: `outcome/<outcome>`, `answers/changed` (better or worse), `turns/<answers read>`,
    `verdict/<satisfied, objection, missing or failed>`, `objections`, `revision/failed`, and for
    rows with a gold answer `gold/rows`, `gold/draft_right` and `gold/final_right`.
    """
    models, limit = (teacher, assistant), ctx.runtime.max_error_frac
    failures = [Failures(model.label, limit) for model in models]
    rows = prompts.rows(Prompt)
    yield from play((_discuss(ctx, config, row, models, failures) for row in rows), *models)
    for each in failures:
        each.check()


def _discuss(
    ctx: Context,
    config: DialogueConfig,
    prompt: Prompt,
    models: tuple[Model, Model],
    failures: Sequence[Failures],
) -> Script[Answer]:
    (teacher, assistant), (teacher_failures, assistant_failures) = models, failures
    (draft,) = yield [Ask(teacher, prompt.messages, config.sampling)]
    teacher_failures.see(draft.error)
    final, num_read, is_open = draft, 0, draft.ending == "whole"
    transcript = [] if draft.error else [_turn(draft)]
    teaching = [*prompt.messages, *transcript]
    task = "\n\n".join(message.content for message in prompt.messages)
    question = fill(config.question, task=task, answer=draft.text)
    questioning = prompt_turns(question, config.critic)
    while is_open and num_read < config.max_turns:
        num_read += 1
        (remark,) = yield [Ask(assistant, questioning, config.assistant_sampling)]
        assistant_failures.see(remark.error)
        verdict = _verdict(remark)
        ctx.count(f"verdict/{verdict}")
        ctx.count("objections", int(verdict == "objection"))
        transcript += [] if remark.error else [_turn(remark, "user")]
        if verdict != "objection":
            break
        objection = without_verdict(remark.text, label="verdict") or remark.text
        revise = fill(config.revise, objection=objection)
        teaching = [*teaching, Message(role="user", content=revise)]
        (revised,) = yield [Ask(teacher, teaching, config.sampling)]
        teacher_failures.see(revised.error)
        if revised.ending != "whole":
            ctx.count("revision/failed")
            break
        final = revised
        transcript.append(_turn(revised))
        teaching = [*teaching, _turn(revised)]
        question = fill(config.question_revised, answer=revised.text)
        questioning = [*questioning, _turn(remark), Message(role="user", content=question)]
    ctx.count(f"ending/{final.ending}")
    outcome = ""
    if draft.error is None:
        ctx.count(f"turns/{num_read}")
        outcome = _compared(ctx, prompt, draft, final)
        ctx.count(f"outcome/{outcome}")
        ctx.count("answers/changed", int(outcome != "same"))
    return answer_row(prompt, final, teacher.label, outcome=outcome, transcript=transcript)


def _compared(ctx: Context, prompt: Prompt, draft: Reply, final: Reply) -> str:
    """Return the outcome of a dialogue, by the answers that are stated before and after it."""
    question, target = prompt.messages[-1].content, prompt.target
    before, after = (stated(reply.text, question, target) for reply in (draft, final))
    if target:
        was_right, right = (read(reply.text, question, target).is_right for reply in (draft, final))
        ctx.count("gold/rows")
        ctx.count("gold/draft_right", int(was_right))
        ctx.count("gold/final_right", int(right))
        if was_right != right:
            return "fixed" if right else "harmed"
    return "same" if before == after else "changed"


def _verdict(remark: Reply) -> str:
    """Return `satisfied` or `objection`, or why there is no verdict: `missing` or `failed`."""
    if remark.ending == "failed":
        return "failed"
    whole = remark.text if remark.ending == "whole" else ""
    return verdict_word(whole, ("satisfied", "objection")) or "missing"


def _turn(reply: Reply, role: Role = "assistant") -> Message:
    return Message(role=role, content=reply.text)
