"""A teacher explains an instruction whose text is known: the text is evidence to check against.

This joins the two papers: Humpback's curated instructions become Orca's queries, and the segment
that an instruction was written for is shown to the teacher, never to the student.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator

from spyhop.augment.answer import RESPONSE_TOKENS
from spyhop.augment.rows import Finished, answer_row, settled
from spyhop.models import Model, Reply, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Answer, Config, InputError, Message, Pair, Prompt, prompt_turns
from spyhop.stage import Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.template import fill
from spyhop.text.verdict import verdict_word

CHECK = (
    "A text from the web bears on the instruction below and on an answer to it. Compare the two. "
    "The answer may say more than the text; what matters is whether the text contradicts it.\n\n"
    "Instruction:\n{instruction}\n\nAnswer:\n{answer}\n\nText:\n{text}\n\n"
    "Name in one or two sentences where answer and text agree or contradict each other. End with a "
    'line of its own: "VERDICT: SUPPORTED" if the text bears the answer out, "VERDICT: '
    'CONTRADICTED" if it speaks against it, "VERDICT: SILENT" if it says nothing on the matter.'
)
REVISE = (
    "A text from the web speaks against your answer. The text:\n\n{text}\n\nWhat was found:\n\n"
    "{finding}\n\nThe text may be wrong; judge for yourself. Then write the whole answer again, "
    "complete and on its own, as the instructions above ask for it. Do not mention the text or "
    "your earlier answer."
)
SUPPORT_VERDICTS = ("supported", "contradicted", "silent")


class ExplainConfig(Config):
    """How the teacher is asked, and what becomes of answers that the text speaks against."""

    sampling: Sampling = Sampling()
    check_sampling: Sampling = Sampling(max_new_tokens=256)
    check: str = CHECK
    """With `{instruction}`, `{answer}` and `{text}`."""
    revise: str = REVISE
    """With `{text}` and `{finding}`; put as a further turn below a contradicted answer."""
    contradicted: Literal["revise", "drop", "keep"] = "revise"
    """A revised answer is checked once more, and dropped if the text speaks against it again."""
    unparsed: Literal["keep", "drop"] = "keep"
    """Whether to keep an answer whose check has no verdict."""
    max_error_frac: float = Field(0.05, ge=0, le=1)
    """Above this share of failed calls the stage fails."""

    @field_validator("check")
    @classmethod
    def _has_its_places(cls, text: str) -> str:
        for place in ("{instruction}", "{answer}", "{text}"):
            if place not in text:
                raise ValueError(f"it has no {place}")
        return text


def plan_explain(
    config: ExplainConfig, prompts: Estimate, pairs: list[Estimate], teacher: Estimate
) -> Estimate:
    """An answer and a check for each prompt; revisions are not known before."""
    room = config.sampling.max_new_tokens
    answer = min(RESPONSE_TOKENS, room)
    check = min(80, config.check_sampling.max_new_tokens)
    evidence = max((each.row_tokens for each in pairs), default=0.0)
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
    ctx: Context, config: ExplainConfig, *, prompts: Artifact, pairs: list[Artifact], teacher: Model
) -> Iterator[Answer]:
    """Yield one checked explanation per prompt, in order; the text is no part of what is trained.

    Outcomes: `supported`, `silent`, `contradicted`, `unparsed` (the check is not whole or has no
    verdict), `revised` (contradicted at first, not any more). Dropped: answers that are `cut`,
    `refused` or `empty`; `contradicted` and `unparsed` as the config says. An answer whose check
    failed is a row with that error. The texts are held in memory.

    Args:
        ctx: As for every stage.
        config: How to ask.
        prompts: Made of queries that were made of the pairs (`query_id` is the pair's id).
        pairs: Where the texts are.
        teacher: Who answers and checks.

    Raises:
        InputError: If the text of a prompt is in none of the pairs.
        ModelError: If more than `max_error_frac` of the calls failed.
    """
    texts = {row.id: row for each in pairs for row in each.rows(Pair)}
    scripts = (
        _explained(ctx, config, prompt, _evidence(texts, prompt), teacher)
        for prompt in prompts.rows(Prompt)
    )
    yield from settled(ctx, play(scripts), Failures(teacher.label, config.max_error_frac))


def _evidence(texts: dict[str, Pair], prompt: Prompt) -> Pair:
    found = texts.get(prompt.query_id)
    if found is None:
        raise InputError(
            f"prompt {prompt.id}: its query {prompt.query_id} is none of the pairs, so there is no "
            "text to check against; make the queries of these pairs"
        )
    return found


def _explained(
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
