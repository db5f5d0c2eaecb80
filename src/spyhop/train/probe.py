"""After training: does the model stop by itself, and does it do what an unseen message asks?

The requests of a system message here can be checked by a rule, and none of them is among those
that the model was trained under. Every prompt is asked without a message, too: what the model does
unasked is no obedience. Source: Orca (arXiv:2306.02707), section 3.1, whose system messages are to
be followed as instructions; the rules are ours.
"""

import hashlib
import heapq
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow.compute as pc
from pydantic import Field

from spyhop.models import Model, Request, Sampling
from spyhop.schema import Config, Ending, Message, Row, Unfinished, prompt_turns
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact, row_id
from spyhop.train.release import PROBE_FAILED


@dataclass(frozen=True, slots=True)
class ProbeMessage:
    """A system message whose effect a rule can check."""

    id: str
    text: str
    is_met: Callable[[str, str], bool]
    """Whether a response meets it: as it is, and in small letters without marks around it."""


MESSAGES = (
    ProbeMessage(
        "capitals", "Write your whole response in capital letters.",
        lambda text, plain: text == text.upper() and text != text.lower(),
    ),
    ProbeMessage(
        "begins", 'Begin your response with the word "Indeed".',
        lambda text, plain: re.match(r"indeed(?![^\W_])", plain) is not None,
    ),
    ProbeMessage(
        "ends", 'End your response with the words "That is all."',
        lambda text, plain: plain.endswith("that is all"),
    ),
    ProbeMessage(
        "five-words", "Respond in five words or fewer.",
        lambda text, plain: len(text.split()) <= 5,
    ),
    ProbeMessage(
        "object", 'Respond with nothing but a JSON object that has one key, "response".',
        lambda text, plain: _has_key(text, "response"),
    ),
)  # fmt: skip
SIZE = "num_prompts"
"""In the stage's state: the number of prompts that fit the time."""


class ProbeConfig(Config):
    """Prompts that check the trained model."""

    num_prompts: int = Field(12, ge=1)
    """Most prompts, drawn from the user turns of the rows that were trained on."""
    most_s: float = Field(120.0, gt=0)
    """Seconds that the probe should take. The first prompt is timed; a slow model gets fewer."""
    max_new_tokens: int = Field(256, gt=0)
    """A response that has not ended by then did not stop by itself."""


ENDINGS = {"whole": "stopped", "empty": "stopped", "cut": "cut", "refused": "failed",
           "failed": "failed"}  # fmt: skip
"""Names of the endings in the counts."""


class Probed(Row):
    """A response to one prompt, without or with a system message that can be checked."""

    message: str
    """Id of the system message; empty for the prompt alone."""
    messages: list[Message]
    response: str
    ending: Ending
    response_tokens: int
    follows: list[str]
    """Ids of all messages whose rule the response meets, asked for or not."""
    error: str | None = None


def plan_probe(config: ProbeConfig, answers: Mapping[str, Estimate], model: Estimate) -> Estimate:
    """Every prompt alone and under each message; a few seconds for a small model."""
    num = config.num_prompts * (1 + len(MESSAGES))
    calls = Calls(
        requests=num,
        prompt_tokens=int(num * 400 / CHARS_PER_TOKEN),
        response_tokens=num * config.max_new_tokens // 2,
        most_response_tokens=num * config.max_new_tokens,
    )
    return Estimate(rows=num, calls={"model": calls})


@stage(version=3, writes=Probed, plan=plan_probe)
def probe(
    ctx: Context, config: ProbeConfig, *, answers: Mapping[str, Artifact], model: Model
) -> Iterator[Probed]:
    """Ask the model, greedily, prompts that it knows under system messages that it does not.

    Counts: `seen/<id>` for a message of the rows, which is therefore not used; `stopped`, `cut` and
    `failed` responses; `probe_failed` if the model raised an error; `follows/<id>` and
    `unasked/<id>`, the responses with and without the message that meet its rule.
    """
    known, prompts = _look(answers, config)
    messages = [each for each in MESSAGES if each.text not in known]
    ctx.count("prompts", 0)
    for each in MESSAGES:
        ctx.count(f"seen/{each.id}", int(each.text in known))
        ctx.count(f"follows/{each.id}", 0)
    began = time.monotonic()
    try:
        yield from _ask(ctx, config, model, messages, prompts[:1])
        size = ctx.state / SIZE  # a resumed probe replays its first prompt at once
        if not size.is_file():
            num = int(config.most_s / max(time.monotonic() - began, 1e-6))
            size.write_text(str(min(len(prompts), max(1, num))))
        num = int(size.read_text())
        ctx.count("prompts", num)
        if num < len(prompts):
            ctx.notice(f"probe: {num} of {len(prompts)} prompts, for most_s = {config.most_s:g}")
        yield from _ask(ctx, config, model, messages, prompts[1:num])
    except Unfinished:
        raise
    except Exception as error:  # noqa: BLE001 (a model's class may raise anything)
        ctx.count(PROBE_FAILED)  # a failure must not keep its training from its result
        ctx.notice(f"the probe failed, the model is kept: {type(error).__name__}: {error!s:.160}")


def _ask(
    ctx: Context,
    config: ProbeConfig,
    model: Model,
    messages: list[ProbeMessage],
    prompts: list[str],
) -> Iterator[Probed]:
    """Ask prompts alone and under each message, and check the replies."""
    asked = {
        row_id(name, prompt): (name, prompt_turns(prompt, text))
        for name, text in [("", ""), *((each.id, each.text) for each in messages)]
        for prompt in prompts
    }
    requests = (Request(id=key, messages=turns) for key, (_, turns) in asked.items())
    sampling = Sampling(max_new_tokens=config.max_new_tokens)
    for reply in model.generate(requests, sampling, total=len(asked)):
        name, turns = asked[reply.id]
        follows = [
            each.id
            for each in messages
            if not reply.error
            and (reply.ending == "whole" or each.id == "begins")  # a cut reply shows its start
            and meets(each, reply.text)
        ]
        ctx.count(ENDINGS[reply.ending])
        for met in follows:
            if name in ("", met):
                ctx.count(f"{'follows' if name else 'unasked'}/{met}")
        yield Probed(
            id=reply.id, message=name, messages=turns, response=reply.text, ending=reply.ending,
            response_tokens=reply.response_tokens, follows=follows, error=reply.error,
        )  # fmt: skip


def meets(message: ProbeMessage, response: str) -> bool:
    """Return whether a response does what the message asks; an empty one never does."""
    text = response.strip()
    plain = text.lower().strip(" \n\t\"'.,!:;*`")
    return bool(plain) and message.is_met(text, plain)


def _has_key(text: str, key: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and list(found) == [key]


def _look(answers: Mapping[str, Artifact], config: ProbeConfig) -> tuple[set[str], list[str]]:
    """Return the system messages of all rows, and the prompts that the seed draws."""
    known: set[str] = set()
    drawn: list[tuple[bytes, str]] = []
    for artifact in answers.values():
        for batch in artifact.batches(["messages"]):
            turns = pc.list_flatten(batch.column("messages"))
            texts = {}
            for role in ("system", "user"):
                some = turns.filter(pc.equal(pc.struct_field(turns, "role"), role))
                found = pc.unique(pc.struct_field(some, "content")).to_pylist()
                texts[role] = [text for text in found if text and text.strip()]
            known.update(texts["system"])
            for prompt in texts["user"]:
                key = hashlib.blake2b(f"0\x1f{prompt}".encode(), digest_size=8).digest()
                drawn.append((key, prompt))
            drawn = heapq.nsmallest(config.num_prompts, set(drawn))
    return known, [prompt for _, prompt in drawn]
