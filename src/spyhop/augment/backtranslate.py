"""Self-augmentation: a backward model writes the instruction that a text answers.

Source: Humpback (arXiv:2308.06259), section 2.2: one instruction per segment, temperature 0.7,
top-p 0.9; written once and never again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from spyhop.augment.conversation import ReversedConfig, backward_prompt
from spyhop.collect.seeds import pair_id
from spyhop.models import Model, Reply, SampledGeneration, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Config, Pair, Segment
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.text.overlap import words

COLLECTION = "web"
MARKS = (
    "### ", "<|", "[INST]", "Human:", "User:", "Assistant:", "Response:", "Answer:", "Output:",
    "Text:",
)  # fmt: skip
SEGMENT_TOKENS, INSTRUCTION_TOKENS = 450, 40
"""Planning figures: 1,722 and 148 characters in the paper (Table 2)."""


COPY_WORDS = 8
"""Words of an n-gram for the filter `copy`."""
COPY_FRAC = 0.5
"""Filter `copy`: least share of the instruction's n-grams that occur in the response.
Instructions shorter than `COPY_WORDS` always pass: a title may be a question."""
LEAK_WORDS = 8
"""Filters `prompt_leak` and `echo`: words of an n-gram of the prompt (all of it, if it is
shorter) that occurs in the instruction. `echo`: such n-grams are at least half of the
instruction."""


class InstructionFilters(Config):
    """Filters for written instructions; empty ones are always dropped. N-grams are of words."""

    marks: tuple[str, ...] = MARKS
    """Filter `prompt_leak`: a line of the instruction starts with one of these."""
    min_chars: int = Field(10, ge=0)
    """Filter `too_short`: least characters of an instruction. The paper states no limit."""
    max_chars: int | None = Field(None, gt=0)
    """Filter `too_long`: most characters of an instruction. Default: no limit, as in the paper."""


class BacktranslateConfig(Config):
    """Sampling of the backward model, and filters for its instructions."""

    asked: ReversedConfig = ReversedConfig()
    """In the words in which it was trained."""
    sampling: SampledGeneration = Sampling(temperature=0.7, top_p=0.9)
    num_instructions: int = Field(1, ge=1)
    """For each segment; each becomes a pair of its own."""
    filters: InstructionFilters = InstructionFilters()


def plan_backtranslate(
    config: BacktranslateConfig, segments: Estimate, model: Estimate
) -> Estimate:
    """One request per instruction."""
    rows = segments.rows * config.num_instructions
    text_tokens = segments.row_tokens or SEGMENT_TOKENS
    asked = (len(config.asked.prompt) + len(config.asked.system_message)) / CHARS_PER_TOKEN
    room = config.sampling.max_new_tokens
    calls = Calls(
        requests=rows,
        prompt_tokens=round(rows * (text_tokens + asked)),
        response_tokens=rows * min(INSTRUCTION_TOKENS, room),
        most_response_tokens=rows * room,
    )
    tokens = text_tokens + min(INSTRUCTION_TOKENS, room)
    return Estimate(rows=rows, row_tokens=tokens, calls={"model": calls})


@stage(version=2, writes=Pair, plan=plan_backtranslate)
def backtranslate(
    ctx: Context, config: BacktranslateConfig, *, segments: Artifact, model: Model
) -> Iterator[Pair]:
    """Yield the segments as responses, each with an instruction; tagged `web`, in order.

    Dropped with their reason: `failed`, `refused`, `cut`, `empty`, `too_short`, `too_long`, `echo`,
    `prompt_leak`, `copy`, `repeated` (the same instruction for the same response before; some 100
    bytes a row in memory).

    Raises:
        ModelError: If more than `max_error_frac` of the calls failed.
    """
    check = _Check(config)
    failures = Failures(model.label, ctx.runtime.max_error_frac)
    seen: set[int] = set()
    scripts = (_asked(config, segment, model) for segment in segments.rows(Segment))
    for segment, replies in play(scripts, model):
        for place, reply in enumerate(replies):
            failures.see(reply.error)
            row = _pair(segment, reply, model.label, place)
            number = int(row.id, 16)
            reason = check.reason(row, reply) or ("repeated" if number in seen else "")
            if reason:
                ctx.drop(row, reason)
            else:
                seen.add(number)
                yield row
    failures.check()


def _asked(
    config: BacktranslateConfig, segment: Segment, model: Model
) -> Script[tuple[Segment, list[Reply]]]:
    messages = backward_prompt(config.asked, segment.text)
    replies = yield [
        Ask(model, messages, config.sampling, place) for place in range(config.num_instructions)
    ]
    return segment, replies


def _pair(segment: Segment, reply: Reply, writer: str, place: int) -> Pair:
    instruction = reply.text.strip()
    return Pair(
        id=pair_id(instruction, segment.text),
        instruction=instruction,
        response=segment.text,
        tag="web",
        collection=COLLECTION,
        origin=segment.url or segment.origin,
        segment_id=segment.id,
        writer=writer,
        sample_index=place,
    )


@dataclass(frozen=True, slots=True)
class _Check:
    """What is amiss with an instruction; empty where nothing is."""

    config: BacktranslateConfig

    def reason(self, row: Pair, reply: Reply) -> str:
        if reply.ending != "whole":
            return reply.ending
        said = words(row.instruction)
        if not said:
            return "empty"
        return (
            self._length(row.instruction)
            or self._leak(row.instruction, said)
            or self._copy(said, row.response)
        )

    def _length(self, text: str) -> str:
        filters = self.config.filters
        if len(text) < filters.min_chars:
            return "too_short"
        is_long = filters.max_chars is not None and len(text) > filters.max_chars
        return "too_long" if is_long else ""

    def _leak(self, text: str, said: Sequence[str]) -> str:
        filters, asked = self.config.filters, self.config.asked
        covered = [False] * len(said)
        for piece in (asked.system_message, *asked.prompt.split("{response}")):
            prompt = words(piece)
            size = min(LEAK_WORDS, len(prompt))
            runs = _runs(prompt, size)
            for start, run in enumerate(_in_order(said, size)):
                if run in runs:
                    covered[start : start + size] = [True] * size
        if 2 * sum(covered) >= len(said):
            return "echo"
        is_marked = any(line.lstrip("* ").startswith(filters.marks) for line in text.splitlines())
        return "prompt_leak" if is_marked or any(covered) else ""

    def _copy(self, said: Sequence[str], response: str) -> str:
        own = list(_in_order(said, COPY_WORDS))
        if not own:
            return ""
        there = _runs(words(response), COPY_WORDS)
        return "copy" if sum(run in there for run in own) >= COPY_FRAC * len(own) else ""


def _in_order(said: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """Yield every run of so many words; none where there are fewer, or none is asked for."""
    for start in range(len(said) - size + 1 if size > 2 else 0):
        yield tuple(said[start : start + size])


def _runs(said: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return set(_in_order(said, size))
