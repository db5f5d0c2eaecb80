"""Keep part of the answers: those under some system messages, or 1/n of the rows."""

from collections.abc import Iterator

from pydantic import Field

from spyhop.schema import Answer, Config
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, number_of


class FilterAnswersConfig(Config):
    """Which answers to keep."""

    system_ids: tuple[str, ...] = ()
    """Keep answers under these system messages; empty keeps all."""
    every_nth: int = Field(1, ge=1)
    """Keep 1/n of the rows, by the hash of the query's id; a larger share contains a smaller."""
    seed: int = 0


@stage(
    version=2,
    writes=Answer,
    plan=lambda config, answers: Estimate(
        rows=answers.rows // config.every_nth, row_tokens=answers.row_tokens
    ),
)
def filter_answers(
    ctx: Context, config: FilterAnswersConfig, *, answers: Artifact
) -> Iterator[Answer]:
    """Yield the matching answers, in order."""
    for row in ctx.track(answers.rows(Answer), "choosing", total=answers.num_rows):
        is_meant = not config.system_ids or row.system_id in config.system_ids
        if is_meant and _level(config.seed, row.query_id) * config.every_nth < 1:
            yield row


def _level(seed: int, name: str) -> float:
    return number_of(f"{seed}/part/{name}") / 2**64
