"""Check answers against the gold answer, or by a vote if there is no gold answer."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from spyhop.augment.answer import PROMPT_TOKENS, RESPONSE_TOKENS, Finished, answer_row, finish
from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Script
from spyhop.schema import Answer, Config, Prompt
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.gold import is_right, stated
from spyhop.text.tables import table
from spyhop.text.template import fill, places

TELL_MESSAGE: str = table("augment/prompts.toml")["verify"]["tell_message"]
WRONG_FRAC = 0.25
"""Planning figure: share of wrong answers, among first and among further samples."""


class VerifyConfig(Config):
    """How to check answers, and what to do with wrong ones."""

    sampling: Sampling = Sampling(temperature=0.7)
    """Sampling of the teacher; more than one sample needs a temperature above 0."""
    max_samples: int = Field(3, ge=1)
    """Maximum number of samples for a prompt with a gold answer."""
    give_up: Literal["tell", "keep", "drop"] = "tell"
    """For prompts without a right response: `tell` gives the teacher the answer and requests an
    explanation, `keep` keeps the first response with its outcome, `drop` drops the row."""
    tell_message: Annotated[str, places("target")] = TELL_MESSAGE
    """Appended to the last user turn; `{target}` is replaced by the gold answer."""
    votes: int = Field(0, ge=0)
    """Samples for a majority vote on a prompt without a gold answer; 0 takes one sample without a
    check."""
    min_agreement: float = Field(0.5, ge=0, le=1)
    """Share of the votes that the majority needs; below it the outcome is `split`."""
    split: Literal["keep", "drop"] = "keep"
    """Whether to keep prompts without a sufficient majority."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "VerifyConfig":
        if self.votes == 1:
            raise ValueError("votes = 1 is not a vote; set 0, or 2 or more")
        if self.sampling.temperature == 0 and (self.votes or self.max_samples > 1):
            raise ValueError(
                "further samples at temperature 0 repeat the first; set sampling.temperature above "
                "0, or max_samples = 1 and votes = 0"
            )
        return self


def plan_verify(config: VerifyConfig, prompts: Estimate, teacher: Estimate) -> Estimate:
    """Include further samples and told answers, each for `WRONG_FRAC` of the rows before.

    Whether a prompt has a gold answer is unknown when planning; with votes, the more expensive of
    the two checks is planned.
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

    Outcomes with a gold answer: `right`; `told`, an explanation by a teacher that was given the
    answer, under the original prompt; `wrong`; `unparsed`, no answer can be read in the response;
    `cut`, `empty` or `refused`, the response is not whole. Outcomes without a gold answer: `voted`,
    `split`, or empty if `votes` is 0.

    Counts: `outcome/<outcome>`, `right/first` and `right/retry`, `tell/failed`, `ending/<ending>`.
    """
    scripts = (
        (_against_gold if prompt.target else _by_vote)(ctx, config, prompt, teacher)
        for prompt in prompts.rows(Prompt)
    )
    yield from finish(ctx, scripts, teacher)


def _against_gold(
    ctx: Context, config: VerifyConfig, prompt: Prompt, teacher: Model
) -> Script[Finished]:
    first: Reply | None = None
    for sample in range(config.max_samples):
        (reply,) = yield [Ask(teacher, prompt.messages, config.sampling, sample)]
        if _verdict(reply, prompt) == "right":
            ctx.count("right/retry" if sample else "right/first")
            changes = {"outcome": "right", "sample_index": sample}
            return Finished(answer_row(prompt, reply, teacher.label, **changes))
        first = first or reply
        if reply.error is not None:
            break
    assert first is not None
    if first.error is not None:
        return Finished(answer_row(prompt, first, teacher.label))
    if config.give_up == "tell":
        *before, last = prompt.messages
        hint = fill(config.tell_message, target=prompt.target)
        asked = [*before, last.model_copy(update={"content": f"{last.content}\n\n{hint}"})]
        (told,) = yield [Ask(teacher, asked, config.sampling)]
        if told.error is None:
            verdict = _verdict(told, prompt)
            outcome = "told" if verdict == "right" else verdict
            return Finished(answer_row(prompt, told, teacher.label, outcome=outcome))
        ctx.count("tell/failed")
    verdict = _verdict(first, prompt)
    row = answer_row(prompt, first, teacher.label, outcome=verdict)
    return Finished(row, drop=verdict if config.give_up == "drop" else "")


def _by_vote(
    ctx: Context, config: VerifyConfig, prompt: Prompt, teacher: Model
) -> Script[Finished]:
    """Take the first response of the majority; of equal answers, the earlier one."""
    samples = range(config.votes or 1)
    replies = yield [Ask(teacher, prompt.messages, config.sampling, n) for n in samples]
    question = prompt.messages[-1].content
    answers = [
        stated(reply.text, question) if reply.ending == "whole" else None for reply in replies
    ]
    votes = Counter(answer for answer in answers if answer is not None)
    ((majority, num_agreed),) = votes.most_common(1) or [("", 0)]
    if num_agreed:
        sample = answers.index(majority)
    else:
        sample = next((n for n in samples if replies[n].error is None), 0)
    if not config.votes or replies[sample].error is not None:
        return Finished(answer_row(prompt, replies[sample], teacher.label))
    is_split = num_agreed == 0 or num_agreed < config.min_agreement * config.votes
    changes = {"outcome": "split" if is_split else "voted", "sample_index": sample}
    row = answer_row(prompt, replies[sample], teacher.label, **changes)
    return Finished(row, drop="split" if is_split and config.split == "drop" else "")


def _verdict(reply: Reply, prompt: Prompt) -> str:
    if reply.ending != "whole":
        return reply.ending
    found = is_right(reply.text, prompt.messages[-1].content, prompt.target)
    return {True: "right", False: "wrong", None: "unparsed"}[found]
