"""A teacher explains an instruction whose source text is known; the text checks its answer.

This joins the two papers: Humpback's curated instructions become Orca's queries. The segment of an
instruction is evidence for the check of the teacher's answer; the student never sees it.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import field_validator

from spyhop.augment.answer import RESPONSE_TOKENS
from spyhop.augment.rows import Finished, answer_row, finish
from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Answer, Config, InputError, Message, Pair, Prompt, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.tables import table
from spyhop.text.template import fill
from spyhop.text.verdict import verdict_word

PROMPTS: dict[str, str] = table("augment/prompts.toml")["explain"]
SUPPORT_VERDICTS = ("supported", "contradicted", "silent")


class ExplainConfig(Config):
    """Prompts of the teacher, and policies for answers that the text contradicts."""

    sampling: Sampling = Sampling()
    """Sampling of the answers."""
    check_sampling: Sampling = Sampling(max_new_tokens=256)
    """Sampling of the check."""
    check: str = PROMPTS["check"]
    """Prompt of the check, with `{instruction}`, `{answer}` and `{text}`."""
    revise: str = PROMPTS["revise"]
    """User turn below a contradicted answer, with `{text}` and `{finding}`."""
    contradicted: Literal["revise", "drop", "keep"] = "revise"
    """Policy for a contradicted answer. A revised answer is checked once more, and dropped if it is
    contradicted again."""
    unparsed: Literal["keep", "drop"] = "keep"
    """Whether to keep an answer whose check has no verdict."""

    @field_validator("check")
    @classmethod
    def _has_its_places(cls, text: str) -> str:
        for place in ("{instruction}", "{answer}", "{text}"):
            if place not in text:
                raise ValueError(f"it has no {place}")
        return text


def plan_explain(
    config: ExplainConfig, prompts: Estimate, pairs: Estimate, teacher: Estimate
) -> Estimate:
    """An answer and a check per prompt; revisions are an upper bound."""
    room = config.sampling.max_new_tokens
    answer = min(RESPONSE_TOKENS, room)
    check = min(80, config.check_sampling.max_new_tokens)
    evidence = pairs.row_tokens
    most = 2 if config.contradicted == "revise" else 1
    both = 2 * prompts.row_tokens + evidence
    again = both + evidence + 2 * room + config.check_sampling.max_new_tokens
    calls = Calls(
        requests=2 * prompts.rows,
        prompt_tokens=round(prompts.rows * (both + answer)),
        response_tokens=prompts.rows * (answer + check),
        most_response_tokens=prompts.rows * most * (room + config.check_sampling.max_new_tokens),
        further_prompt_tokens=round(prompts.rows * (room - answer + (most - 1) * again)),
    )
    return Estimate(
        rows=prompts.rows, row_tokens=prompts.row_tokens + answer, calls={"teacher": calls}
    )


@stage(version=3, writes=Answer, plan=plan_explain)
def explain(
    ctx: Context, config: ExplainConfig, *, prompts: Artifact, pairs: Artifact, teacher: Model
) -> Iterator[Answer]:
    """Yield one checked explanation per prompt, in order; its `messages` do not contain the text.

    Outcomes: `supported`, `silent`, `contradicted`, `unparsed` (the check is not whole or has no
    verdict), `revised` (no longer contradicted). Dropped: answers that are `cut`,
    `refused` or `empty`; `contradicted` and `unparsed` as the config says. An answer whose check
    failed is a row with that error. The texts are held in memory.
    """
    texts = {row.id: row for row in pairs.rows(Pair)}
    scripts = (
        _explain(ctx, config, prompt, _evidence(texts, prompt), teacher)
        for prompt in prompts.rows(Prompt)
    )
    yield from finish(
        ctx, play(scripts, teacher), Failures(teacher.label, ctx.runtime.max_error_frac)
    )


def _evidence(texts: dict[str, Pair], prompt: Prompt) -> Pair:
    found = texts.get(prompt.query_id)
    if found is None:
        raise InputError(
            f"prompt {prompt.id}: query {prompt.query_id} not found in `pairs`; build the queries "
            "from the same pairs"
        )
    return found


def _explain(
    ctx: Context, config: ExplainConfig, prompt: Prompt, pair: Pair, teacher: Model
) -> Script[Finished]:
    (first,) = yield [Ask(teacher, prompt.messages, config.sampling)]
    if first.ending != "whole":
        return _unchecked(prompt, first, teacher)
    (finding,) = yield [_check(config, pair, first.text, teacher)]
    if finding.ending == "failed":
        return _unchecked(prompt, finding, teacher)
    verdict = _verdict(finding)
    ctx.count(f"first/{verdict}")
    if verdict != "contradicted" or config.contradicted != "revise":
        row = answer_row(prompt, first, teacher.label, outcome=verdict)
        return Finished(row, drop=_dropped(config, verdict))
    turns = [
        *prompt.messages,
        Message(role="assistant", content=first.text),
        Message(role="user", content=fill(config.revise, text=pair.response, finding=finding.text)),
    ]
    (again,) = yield [Ask(teacher, turns, config.sampling)]
    if again.ending != "whole":
        return _unchecked(prompt, again, teacher)
    (finding,) = yield [_check(config, pair, again.text, teacher)]
    if finding.ending == "failed":
        return _unchecked(prompt, finding, teacher)
    verdict = _verdict(finding)
    outcome = verdict if verdict in ("contradicted", "unparsed") else "revised"
    row = answer_row(prompt, again, teacher.label, outcome=outcome)
    return Finished(row, drop=outcome if outcome == "contradicted" else _dropped(config, verdict))


def _verdict(finding: Reply) -> str:
    whole = finding.text if finding.ending == "whole" else ""
    return verdict_word(whole, SUPPORT_VERDICTS) or "unparsed"


def _unchecked(prompt: Prompt, reply: Reply, teacher: Model) -> Finished:
    drop = "" if reply.ending == "failed" else reply.ending
    return Finished(answer_row(prompt, reply, teacher.label), drop=drop)


def _check(config: ExplainConfig, pair: Pair, answer: str, teacher: Model) -> Ask:
    asked = fill(config.check, instruction=pair.instruction, answer=answer, text=pair.response)
    return Ask(teacher, prompt_turns(asked), config.check_sampling)


def _dropped(config: ExplainConfig, verdict: str) -> str:
    drops = {"contradicted": config.contradicted == "drop", "unparsed": config.unparsed == "drop"}
    return verdict if drops.get(verdict) else ""
