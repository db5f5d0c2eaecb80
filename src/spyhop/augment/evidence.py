"""A teacher explains an instruction whose source text is known; the text checks its answer.

This joins the two papers: Humpback's curated instructions become Orca's queries. The segment of an
instruction is evidence for the check of the teacher's answer; the student never sees it.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from spyhop.augment.answer import RESPONSE_TOKENS, Finished, answer_row, finish
from spyhop.models import Model, Sampling
from spyhop.models.script import Ask, Script
from spyhop.schema import Answer, Config, InputError, Message, Pair, Prompt, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.tables import table
from spyhop.text.template import fill, places
from spyhop.text.verdict import verdict_word

PROMPTS: dict[str, str] = table("augment/prompts.toml")["explain"]
SUPPORT_VERDICTS = ("supported", "contradicted", "silent")


class ExplainConfig(Config):
    """Prompts of the teacher, and policies for answers that the text contradicts."""

    sampling: Sampling = Sampling()
    """Sampling of the answers."""
    check_sampling: Sampling = Sampling(max_new_tokens=256)
    """Sampling of the check."""
    check: Annotated[str, places("instruction", "answer", "text")] = PROMPTS["check"]
    """Prompt of the check, with `{instruction}`, `{answer}` and `{text}`."""
    revise: str = PROMPTS["revise"]
    """User turn below a contradicted answer, with `{text}` and `{finding}`."""
    contradicted: Literal["revise", "drop", "keep"] = "revise"
    """Policy for a contradicted answer. A revised answer is checked once more, and dropped if it is
    contradicted again."""
    unparsed: Literal["keep", "drop"] = "keep"
    """Whether to keep an answer whose check has no verdict."""


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
    scripts = (_explain(ctx, config, prompt, texts, teacher) for prompt in prompts.rows(Prompt))
    yield from finish(ctx, scripts, teacher)


def _explain(
    ctx: Context, config: ExplainConfig, prompt: Prompt, texts: Mapping[str, Pair], teacher: Model
) -> Script[Finished]:
    """Ask, check, and where the text contradicts the answer, revise and check once more."""
    pair = texts.get(prompt.query_id)
    if pair is None:
        raise InputError(
            f"prompt {prompt.id}: query {prompt.query_id} not found in `pairs`; build the queries "
            "from the same pairs"
        )
    turns, is_revised = list(prompt.messages), False
    while True:
        (reply,) = yield [Ask(teacher, turns, config.sampling)]
        if reply.ending != "whole":
            drop = "" if reply.ending == "failed" else reply.ending
            return Finished(answer_row(prompt, reply, teacher.label), drop=drop)
        check = fill(
            config.check, instruction=pair.instruction, answer=reply.text, text=pair.response
        )
        (finding,) = yield [Ask(teacher, prompt_turns(check), config.check_sampling)]
        if finding.ending == "failed":
            return Finished(answer_row(prompt, finding, teacher.label))
        whole = finding.text if finding.ending == "whole" else ""
        verdict = verdict_word(whole, SUPPORT_VERDICTS) or "unparsed"
        if is_revised:
            break
        ctx.count(f"first/{verdict}")
        if verdict != "contradicted" or config.contradicted != "revise":
            break
        revise = fill(config.revise, text=pair.response, finding=finding.text)
        turns += [
            Message(role="assistant", content=reply.text), Message(role="user", content=revise)
        ]  # fmt: skip
        is_revised = True
    is_mended = is_revised and verdict not in ("contradicted", "unparsed")
    row = answer_row(prompt, reply, teacher.label, outcome="revised" if is_mended else verdict)
    drops = {
        "contradicted": is_revised or config.contradicted == "drop",
        "unparsed": config.unparsed == "drop",
    }
    return Finished(row, drop=verdict if drops.get(verdict) else "")
