"""Keep part of the answers: under some system messages, 1/n of the rows or tasks, or N rows."""

from collections.abc import Iterator
from heapq import nsmallest

from pydantic import Field

from spyhop.schema import Answer, Config, InputError, Prompt
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, number_of


class FilterAnswersConfig(Config):
    """Which answers to keep."""

    system_ids: tuple[str, ...] = ()
    """Keep answers under these system messages; empty keeps all."""
    every_nth: int = Field(1, ge=1)
    """Keep 1/n of the rows, by the hash of the query's id; a larger share contains a smaller."""
    tasks_nth: int = Field(1, ge=1, exclude_if=lambda value: value == 1)
    """Keep the rows of 1/n of the tasks, by the hash of the task's name."""
    num_rows: int | None = Field(None, ge=1)
    """Keep exactly this many of the matching rows, drawn by hash; a larger number contains a
    smaller one. Default: all."""
    seed: int = 0


@stage(
    version=2,
    writes=Answer,
    plan=lambda config, answers, like=None: Estimate(
        rows=min(
            answers.rows // config.every_nth // config.tasks_nth, config.num_rows or answers.rows
        ),
        row_tokens=answers.row_tokens,
    ),
)
def filter_answers(
    ctx: Context, config: FilterAnswersConfig, *, answers: Artifact, like: Artifact | None = None
) -> Iterator[Answer]:
    """Yield the matching answers, in order. Failed rows do not count towards an exact number.

    With `like`, only answers to the queries of its prompts match.
    """
    known = None if like is None else {prompt.query_id for prompt in like.rows(Prompt)}
    drawn: set[int] | None = None
    if config.num_rows is not None:
        levels = {
            place: _level(config.seed, f"{row.query_id}/{row.id}")
            for place, row in enumerate(answers.rows(Answer))
            if _matches(config, row) and row.ending == "whole"
        }
        if len(levels) < config.num_rows:
            raise InputError(
                f"{answers.name}: {len(levels):,} whole rows, fewer than num_rows = "
                f"{config.num_rows:,}"
            )
        drawn = set(nsmallest(config.num_rows, levels, key=levels.__getitem__))
    rows = ctx.track(answers.rows(Answer), "choosing", total=answers.num_rows)
    for place, row in enumerate(rows):
        is_known = known is None or row.query_id in known
        if is_known and (place in drawn if drawn is not None else _matches(config, row)):
            yield row


def _matches(config: FilterAnswersConfig, row: Answer) -> bool:
    is_meant = not config.system_ids or row.system_id in config.system_ids
    is_meant &= _level(config.seed, f"{row.collection}/{row.task}") * config.tasks_nth < 1
    return is_meant and _level(config.seed, row.query_id) * config.every_nth < 1


def _level(seed: int, name: str) -> float:
    return number_of(f"{seed}/part/{name}") / 2**64
