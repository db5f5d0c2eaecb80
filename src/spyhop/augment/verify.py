"""Answers that were checked: against the gold answer, or by a vote where there is none."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from spyhop.augment.answer import PROMPT_TOKENS, RESPONSE_TOKENS
from spyhop.augment.rows import Finished, answer_row, settled
from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Answer, Config, Message, Prompt
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.gold import is_right, stated

WRONG_FRAC = 0.25
"""Planning figure: the share of first answers that are wrong, and of each further sample."""
TELL = (
    "The correct answer is: {target}\n\n"
    "Explain how to reach it, following the instructions above. Write the explanation as if you "
    "had found the answer yourself: do not mention that it was given to you. End with a sentence "
    'that says "The answer is" and the answer.'
)


class VerifyConfig(Config):
    """How answers are checked, and what becomes of those that stay wrong."""

    sampling: Sampling = Sampling(temperature=0.7)
    """Its temperature must be above 0 where more than one sample is drawn."""
    max_samples: int = Field(3, ge=1)
    """Responses to a prompt with a gold answer at most, the first one included."""
    give_up: Literal["tell", "keep", "drop"] = "tell"
    """What becomes of a prompt without a right response: the teacher is told the answer and asked
    to explain it, the first response is kept with its outcome, or the row is dropped."""
    tell_message: str = TELL
    """Put below the last user turn; `{target}` stands for the gold answer."""
    votes: int = Field(0, ge=0)
    """Responses to a prompt without a gold answer, the majority wins; 0 takes one unchecked."""
    min_agreement: float = Field(0.5, ge=0, le=1)
    """Share of the votes that the majority needs; below it the prompt is `split`."""
    split: Literal["keep", "drop"] = "keep"
    max_error_frac: float = Field(0.05, ge=0, le=1)
    """Above this share of rows without any reply the stage fails."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "VerifyConfig":
        if "{target}" not in self.tell_message:
            raise ValueError("tell_message has no {target}")
        if self.votes == 1:
            raise ValueError("votes = 1 is no vote; set 0, or 2 and more")
        if self.sampling.temperature == 0 and (self.votes or self.max_samples > 1):
            raise ValueError(
                "further samples at temperature 0 say the same again; set sampling.temperature "
                "above 0, or max_samples = 1 and votes = 0"
            )
        return self


def plan_verify(config: VerifyConfig, prompts: Estimate, teacher: Estimate) -> Estimate:
    """Count the further samples and the told answers too, `WRONG_FRAC` of them each time.

    Whether a prompt has a gold answer is not known before; where votes are asked for, the dearer
    of the two ways is planned.
    """
    num_told = int(config.give_up == "tell")
    checked = sum(WRONG_FRAC**n for n in range(config.max_samples + num_told))
    told_tokens = num_told * len(config.tell_message) / CHARS_PER_TOKEN
    requests = math.ceil(prompts.rows * max(checked, config.votes))
    prompt_tokens = prompts.row_tokens or PROMPT_TOKENS
    response_tokens = min(RESPONSE_TOKENS, config.sampling.max_new_tokens)
    most = prompts.rows * max(config.max_samples + num_told, config.votes)
    calls = Calls(
        requests=requests,
        prompt_tokens=round(requests * prompt_tokens),
        response_tokens=requests * response_tokens,
        most_response_tokens=most * config.sampling.max_new_tokens,
        further_prompt_tokens=round((most - requests) * prompt_tokens + prompts.rows * told_tokens),
    )
    return Estimate(
        rows=prompts.rows, row_tokens=prompt_tokens + response_tokens, calls={"teacher": calls}
    )


@stage(version=2, writes=Answer, plan=plan_verify)
def verify(
    ctx: Context, config: VerifyConfig, *, prompts: Artifact, teacher: Model
) -> Iterator[Answer]:
    """Yield one checked row per prompt, in order; a failed call is a row with its error.

    Outcomes of prompts with a gold answer: `right`; `told`, an explanation of the answer that the
    teacher was given, below the original prompt; `wrong`; `unparsed`, no answer can be read in the
    response; `cut`, the response is not complete, whatever it says. Of prompts without: `voted`,
    `split`, or none where `votes` is 0.

    Counts: `outcome/<what>`, `right/first` and `right/again`, `tell/failed`, `finish/<reason>`.

    Raises:
        ModelError: If more than `max_error_frac` of the prompts got no reply.
    """
    scripts = (_checked(ctx, config, prompt, teacher) for prompt in prompts.rows(Prompt))
    yield from settled(ctx, play(scripts), Failures(teacher.label, config.max_error_frac))


def _checked(
    ctx: Context, config: VerifyConfig, prompt: Prompt, teacher: Model
) -> Script[Finished]:
    if prompt.target:
        return (yield from _against_gold(ctx, config, prompt, teacher))
    if config.votes:
        return (yield from _by_vote(config, prompt, teacher))
    (reply,) = yield [Ask(teacher, prompt.messages, config.sampling)]
    return Finished(answer_row(prompt, reply, teacher.label))


def _against_gold(
    ctx: Context, config: VerifyConfig, prompt: Prompt, teacher: Model
) -> Script[Finished]:
    first: Reply | None = None
    for place in range(config.max_samples):
        (reply,) = yield [Ask(teacher, prompt.messages, config.sampling, place)]
        if _verdict(reply, prompt) == "right":
            ctx.count("right/again" if place else "right/first")
            return Finished(_row(prompt, reply, teacher, "right", place))
        first = first or reply
        if reply.error is not None:
            break
    assert first is not None
    if first.error is not None:
        return Finished(answer_row(prompt, first, teacher.label))
    if config.give_up == "tell":
        (told,) = yield [Ask(teacher, _telling(config, prompt), config.sampling)]
        if told.error is None:
            verdict = _verdict(told, prompt)
            outcome = "told" if verdict == "right" else verdict
            return Finished(_row(prompt, told, teacher, outcome))
        ctx.count("tell/failed")
    verdict = _verdict(first, prompt)
    row = _row(prompt, first, teacher, verdict)
    return Finished(row, drop=verdict if config.give_up == "drop" else "")


def _by_vote(config: VerifyConfig, prompt: Prompt, teacher: Model) -> Script[Finished]:
    """Take the first response of the majority; of equal ones, the answer that came first."""
    replies = yield [
        Ask(teacher, prompt.messages, config.sampling, place) for place in range(config.votes)
    ]
    answers = [_answer(reply, prompt) for reply in replies]
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        place = next((n for n, reply in enumerate(replies) if reply.error is None), 0)
        if replies[place].error is not None:
            return Finished(answer_row(prompt, replies[place], teacher.label))
        num_agreed = 0
    else:
        ((majority, num_agreed),) = votes.most_common(1)
        place = answers.index(majority)
    is_split = num_agreed == 0 or num_agreed < config.min_agreement * config.votes
    row = _row(prompt, replies[place], teacher, "split" if is_split else "voted", place)
    return Finished(row, drop="split" if is_split and config.split == "drop" else "")


def _row(prompt: Prompt, reply: Reply, teacher: Model, outcome: str, place: int = 0) -> Answer:
    return answer_row(prompt, reply, teacher.label, outcome=outcome, sample_index=place)


def _telling(config: VerifyConfig, prompt: Prompt) -> list[Message]:
    *before, last = prompt.messages
    told = config.tell_message.replace("{target}", prompt.target)
    return [*before, last.model_copy(update={"content": f"{last.content}\n\n{told}"})]


def _answer(reply: Reply, prompt: Prompt) -> str | None:
    is_whole = reply.ending == "whole"
    return stated(reply.text, prompt.messages[-1].content) if is_whole else None


def _verdict(reply: Reply, prompt: Prompt) -> str:
    if reply.ending != "whole":
        return reply.ending
    found = is_right(reply.text, prompt.messages[-1].content, prompt.target)
    return {True: "right", False: "wrong", None: "unparsed"}[found]
