"""Self-augmentation: a backward model writes the instruction that a text of any origin answers.

Source: Humpback (arXiv:2308.06259), section 2.2: one instruction per segment, temperature 0.7,
top-p 0.9; written once and never again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from spyhop.augment.conversation import ReversedConfig, backward_prompt
from spyhop.augment.instruction import InstructionCheck, InstructionFilters, clean
from spyhop.collect.pairs import pair_id
from spyhop.models import Model, Reply, SampledGeneration, Sampling
from spyhop.models.script import Ask, Failures, Script, play
from spyhop.schema import Config, InputError, Pair, Segment
from spyhop.stage import CHARS_PER_TOKEN, Calls, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, table_files
from spyhop.store.rows import read_rows

COLLECTION = "web"
SEGMENT_TOKENS, INSTRUCTION_TOKENS = 450, 40
"""Planning figures: 1,722 and 148 characters in the paper (Table 2)."""


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


@stage(version=3, writes=Pair, plan=plan_backtranslate)
def backtranslate(
    ctx: Context, config: BacktranslateConfig, *, segments: Artifact, model: Model
) -> Iterator[Pair]:
    """Yield the segments as responses, each with an instruction; tagged `web`, in order.

    Instructions are cleaned first: thoughts, prefixes, quotes around the whole and end tokens are
    removed; `cleaned` counts such rows. Dropped with their reason: replies that are not whole, as
    `failed`, `refused`, `cut` or `empty`; `too_short`, `too_long`, `refusal`, `other_language`,
    `loop`, `echo` and `prompt_leak` of the prompt, `talk` about the task, `copy` of the response,
    `answered` (it contains the response), `statement` (it asks for nothing), and `repeated` (the
    same pair before; some 100 bytes a row in memory).
    """
    model.check_samples(config.num_instructions, config.sampling)
    check = InstructionCheck(config.filters, config.asked)
    failures = Failures(model.label, ctx.runtime.max_error_frac)
    seen: set[int] = set()
    scripts = (_asked(config, segment, model) for segment in segments.rows(Segment))
    for segment, replies in play(scripts, model):
        for place, reply in enumerate(replies):
            failures.see(reply.error)
            instruction = clean(reply.text)
            row = Pair(
                id=pair_id(instruction, segment.text), instruction=instruction,
                response=segment.text, tag="web", collection=COLLECTION,
                origin=segment.url or segment.origin, segment_id=segment.id,
                writer=model.label, sample_index=place,
            )  # fmt: skip
            number = int(row.id, 16)
            reason = "" if reply.ending == "whole" else str(reply.ending)
            reason = reason or check.reason(row.instruction, row.response, segment.language)
            reason = reason or ("repeated" if number in seen else "")
            ctx.count("cleaned", int(row.instruction != reply.text.strip()))
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


class ReadSegmentsConfig(Config):
    """Files to read."""

    language: str = "en"
    """Language of rows without a `language`."""


@stage(version=1, writes=Segment, plan=lambda config, folder: sum_estimates([folder]))
def read_segments(
    ctx: Context, config: ReadSegmentsConfig, *, folder: Artifact
) -> Iterator[Segment]:
    """Read segments: rows with a `text` and any other columns of a segment.

    JSONL, CSV and Parquet are read, and folders of artifacts. A row without an id gets the hash of
    its text as id. Dropped: `empty`, `repeated` (the same id).
    """
    seen: set[str] = set()
    for path in table_files(folder.path, "*"):
        for where, row in ctx.track(read_rows(path), "reading"):
            segment = _segment(config, row, where, path)
            if not segment.text.strip() or segment.id in seen:
                ctx.drop(segment, "repeated" if segment.text.strip() else "empty")
                continue
            seen.add(segment.id)
            yield segment


def _segment(config: ReadSegmentsConfig, row: Any, where: str, path: Path) -> Segment:  # noqa: ANN401
    if not isinstance(row, dict):
        raise InputError(f"{where}: {row!r:.60} is not a row")
    text = field(row, "text", where)
    known = {
        "id": row_id("segment", text),
        "url": "",
        "headings": [],
        "start": 0,
        "end": len(text),
        "language": config.language,
        "page_digest": "",
        "origin": f"{path.name}{where.removeprefix(str(path))}",
    }
    known |= {name: value for name, value in row.items() if name in Segment.model_fields and value}
    known |= {"text": text}
    try:
        return Segment.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {name} = {first['input']!r:.60}: {first['msg']}") from None
