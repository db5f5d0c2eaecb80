"""A part of the answers: those under some system messages, or every so-many-th one."""

from collections.abc import Iterator

from pydantic import Field

from spyhop.schema import Answer, Config
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, number_of


class ChosenConfig(Config):
    """Which answers are kept."""

    system_ids: tuple[str, ...] = ()
    """Those under these system messages; empty is any."""
    one_of: int = Field(1, ge=1)
    """One of so many queries, by the hash of its id: larger parts hold the smaller ones."""
    seed: int = 0


@stage(
    version=2,
    writes=Answer,
    plan=lambda config, answers: Estimate(
        rows=answers.rows // config.one_of, row_tokens=answers.row_tokens
    ),
)
def chosen(ctx: Context, config: ChosenConfig, *, answers: Artifact) -> Iterator[Answer]:
    """Yield the answers that are asked for, in order."""
    for row in ctx.track(answers.rows(Answer), "choosing", total=answers.num_rows):
        is_meant = not config.system_ids or row.system_id in config.system_ids
        if is_meant and _level(config.seed, row.query_id) * config.one_of < 1:
            yield row


def _level(seed: int, name: str) -> float:
    return number_of(f"{seed}/part/{name}") / 2**64
