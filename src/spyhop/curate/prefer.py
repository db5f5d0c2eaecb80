"""Preference pairs from responses that are paid for already: a better and a worse one each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from pydantic_core import to_json

from spyhop.collect.messages import with_thought
from spyhop.collect.shapes import NotText, ToolCalls, conversation
from spyhop.lazy import duckdb
from spyhop.schema import Config, InputError, Message, NoConfig, Preference, ending_of
from spyhop.stage import FOLDER, Context, Estimate, Estimates, stage, sum_estimates
from spyhop.store import Artifact, Artifacts, row_id
from spyhop.store.rows import read_rows, row_files
from spyhop.text.gold import is_right

PAIRED_FRAC = 0.5
"""Planning figure: prompts of the smaller side that have both responses."""
FILE = "pairs.jsonl"
MEMORY = "1GB"
"""Of DuckDB, beyond which it spills to disk."""
COLUMNS = pa.schema([
    ("prompt", pa.string()), ("turns", pa.string()), ("is_chosen", pa.bool_()),
    ("text", pa.string()), ("origin", pa.string()), ("reason", pa.string()),
    ("licence", pa.string()), ("score", pa.float64()), ("sample", pa.int64()),
    ("place", pa.int64()),
])  # fmt: skip
PAIRS = """
WITH better AS (
    SELECT DISTINCT ON (prompt) * FROM candidates WHERE is_chosen
    ORDER BY prompt, score DESC NULLS LAST, sample, place
)
SELECT better.prompt || '-' || md5(better.text || chr(31) || worse.text)[:8] AS id,
    better.turns AS messages, better.text AS chosen, worse.text AS rejected,
    better.origin AS chosen_origin, worse.origin AS rejected_origin,
    concat_ws(' > ', nullif(better.reason, ''), nullif(worse.reason, '')) AS reason,
    better.licence AS licence
FROM better JOIN candidates AS worse USING (prompt)
WHERE NOT worse.is_chosen AND worse.text <> better.text
QUALIFY row_number() OVER (
    PARTITION BY prompt ORDER BY worse.score NULLS LAST, worse.sample, worse.place
) = 1
ORDER BY better.place
"""


class PreferConfig(Config):
    """Evidence that one response is better than another."""

    better: tuple[str, ...] = ("right", "told", "corrected")
    """Outcomes of checked answers that may be chosen, and are never rejected."""
    worse: tuple[str, ...] = ("wrong",)
    """Outcomes that may be rejected, and are never chosen."""
    min_score: float = Field(5.0, ge=1, le=5)
    """Rating from which a response may be chosen."""
    max_score: float = Field(2.0, ge=1, le=5)
    """Rating up to which a response may be rejected."""


def plan_prefer(
    config: PreferConfig, chosen: Estimates, rejected: Estimates | None = None
) -> Estimate:
    """A share of the rows of the smaller side."""
    sides = [sum_estimates(side.values()) for side in (chosen, rejected) if side]
    least = min(sides, key=lambda side: side.rows)
    return Estimate(rows=int(least.rows * PAIRED_FRAC), row_tokens=2 * least.row_tokens)


@stage(version=2, writes=Preference, plan=plan_prefer)
def prefer(
    ctx: Context, config: PreferConfig, *, chosen: Artifacts, rejected: Artifacts | None = None
) -> Iterator[Preference]:
    """Yield at most one pair per prompt, in the order of the chosen responses.

    With `rejected`, its responses lose against those of `chosen` to the same prompt (a teacher
    over its assistant), unless an outcome or a rating says the opposite. Without it, outcome
    (`right` over `wrong`), rating (5 over 2) or correction (over the first turn of `transcript`)
    decide between the responses of `chosen`. A row with a gold answer (`target`) and no outcome is
    checked by it. Of several, the one with the highest rating is chosen and the one with the lowest
    is rejected, then the first sample. Responses that are not whole are never used.

    Inputs are rows of any shape with a response; of them `model`, `outcome`, `target`, `score` (or
    `rating.score`), `sample_index`, `ending` and `licence` are read. Memory is bounded.

    Counts: `chosen` and `rejected` (usable responses), `prompts` (with a chosen response),
    `ending/<ending>`, `no_evidence`, `not_text`, `tool_calls`.

    Raises:
        InputError: If no prompt has both.
    """
    rows = _candidates(ctx, config, chosen, rejected)
    path = ctx.state / "candidates.parquet"
    with pq.ParquetWriter(path, COLUMNS) as writer:
        while some := list(islice(rows, 4096)):
            writer.write_batch(pa.RecordBatch.from_pylist(some, schema=COLUMNS))
    spilled = str(ctx.state / "spilled")
    settings: dict[str, Any] = {"memory_limit": MEMORY, "temp_directory": spilled, "threads": 1}
    with duckdb.connect(config=settings) as base:
        base.register("candidates", base.read_parquet(str(path)))
        sql = "SELECT count(DISTINCT prompt) FROM candidates WHERE is_chosen"
        ((num_prompts,),) = base.sql(sql).fetchall()
        ctx.count("prompts", num_prompts)
        found = 0
        for batch in base.sql(PAIRS).to_arrow_reader(4096):
            for row in batch.to_pylist():
                found += 1
                yield Preference.model_validate({**row, "messages": json.loads(row["messages"])})
    if not found:
        raise InputError(
            f"no prompt has a response to choose ({ctx.counts['chosen']:,} in all) and another one "
            f"to reject ({ctx.counts['rejected']:,}): prompts, system messages included, must be "
            "the same, and an outcome, a rating or the input `rejected` must tell them apart"
        )


def _candidates(
    ctx: Context, config: PreferConfig, chosen: Artifacts, rejected: Artifacts | None
) -> Iterator[dict[str, Any]]:
    sides = [(True, each) for each in chosen.values()]
    sides += [(False, each) for each in (rejected or {}).values()]
    place = 0
    for is_first, artifact in sides:
        for path in row_files(artifact.path):
            for where, row in ctx.track(read_rows(path, None, ":"), "reading"):
                turns = _turns(ctx, row, where)
                score, outcome = _score(row, where), _outcome(row, turns)
                tried = (row.get("transcript") or [{}])[0]  # corrected in this dialogue
                first = str(tried.get("content") or "") if tried.get("role") == "assistant" else ""
                first = first if turns and first != turns[-1].content else ""
                is_good = outcome in config.better or (score or 0) >= config.min_score
                is_good |= bool(first)
                is_bad = outcome in config.worse or (score or 6) <= config.max_score
                is_chosen = is_good if rejected is None else is_first
                is_contrary = is_bad if is_chosen else is_good
                if not turns:
                    continue
                if is_contrary or (rejected is None and not is_good and not is_bad):
                    ctx.count("no_evidence")
                    continue
                thought = str(row.get("reasoning") or "")
                ctx.count("chosen" if is_chosen else "rejected")
                before = [turn.model_dump(include={"role", "content"}) for turn in turns[:-1]]
                asked = to_json(before).decode()
                place += 1
                found = {
                    "prompt": row_id(asked), "turns": asked,
                    "is_chosen": is_chosen, "text": with_thought(turns[-1], thought),
                    "origin": str(row.get("model") or row.get("origin") or "unknown"),
                    "reason": outcome or ("" if score is None else f"{score:g}"),
                    "licence": str(row.get("licence") or row.get("license") or ""),
                    "score": score, "sample": int(row.get("sample_index") or 0), "place": place,
                }  # fmt: skip
                yield found
                if is_chosen and first:
                    ctx.count("rejected")
                    more = {"text": first, "origin": "first try", "reason": "first"}
                    yield {**found, **more, "is_chosen": False, "score": None}


def _turns(ctx: Context, row: Mapping[str, Any], where: str) -> list[Message]:
    """Return a conversation that ends with a whole response; nothing, with a count, otherwise."""
    if row.get("error"):
        ctx.count("ending/failed")
        return []
    try:
        turns = conversation(row, where).turns
    except (ToolCalls, NotText) as error:
        ctx.count("tool_calls" if isinstance(error, ToolCalls) else "not_text")
        return []
    is_answered = len(turns) > 1 and turns[-1].role == "assistant"
    text = turns[-1].content if is_answered else ""
    ending = row.get("ending") or ending_of(str(row.get("finish_reason") or "stop"), text)
    if ending != "whole" or not text.strip():
        ctx.count(f"ending/{'empty' if ending == 'whole' else ending}")
        return []
    return turns


def _outcome(row: Mapping[str, Any], turns: Sequence[Message]) -> str:
    """Return a response's outcome, or without one what its gold answer says."""
    outcome, target = str(row.get("outcome") or ""), str(row.get("target") or "")
    if outcome or not target or not turns:
        return outcome
    return "right" if is_right(turns[-1].content, turns[-2].content, target) else "wrong"


def _score(row: Mapping[str, Any], where: str) -> float | None:
    rating = row.get("rating")
    score = rating.get("score") if isinstance(rating, Mapping) else row.get("score")
    if score is None or (isinstance(score, int | float) and not isinstance(score, bool)):
        return None if score is None else float(score)
    raise InputError(f"{where}: score = {score!r:.60} is not a number")


@stage(version=1, writes=FOLDER, plan=lambda config, pairs: Estimate(seconds=1))
def export_pairs(ctx: Context, config: NoConfig, *, pairs: Artifact) -> None:
    """Write `pairs.jsonl`: `prompt`, `chosen` and `rejected` as lists of turns, and provenance.

    TRL, Axolotl and `spyhop train` read it. Provenance: `id`, `chosen_origin`, `rejected_origin`,
    `reason` and `licence`.
    """
    with (ctx.out / FILE).open("wb") as stream:
        for row in ctx.track(pairs.rows(Preference), "writing", total=pairs.num_rows):
            chosen, rejected = (
                [{"role": "assistant", "content": text}] for text in (row.chosen, row.rejected)
            )
            prompt = [turn.model_dump(include={"role", "content"}) for turn in row.messages]
            known = row.model_dump(exclude={"messages", "chosen", "rejected"})
            pair = {"prompt": prompt, "chosen": chosen, "rejected": rejected, **known}
            stream.write(to_json(pair) + b"\n")
    ctx.count("rows", pairs.num_rows)
