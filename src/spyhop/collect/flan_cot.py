"""The chain-of-thought sets of FLAN-v2, as published: TSV files of question, answer, rationale."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from spyhop.collect.reading import Reading
from spyhop.models.replay import Recorded
from spyhop.schema import Config, InputError, Query
from spyhop.stage import Context, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import lines, matching

ANSWER_CUE = "The answer is"


class FlanCotConfig(Config):
    """Which files of the folder are read."""

    pattern: str = "*.tsv"
    licence: str = ""
    """Licence of the files, if it is known."""


@stage(version=2, writes=Query, plan=lambda config, folder: sum_estimates([folder]))
def read_flan_cot(ctx: Context, config: FlanCotConfig, *, folder: Artifact) -> Iterator[Query]:
    """Read the questions; all of them are taken, as in the Orca paper (Table 3).

    The task is the file's name without `_train`. A question is multiple choice when it lists
    options. Repeated questions are kept, each with an id of its own.
    """
    reading = Reading(ctx, "cot", config.licence)
    for task, origin, question, answer, _ in _rows(folder.path, config.pattern):
        yield reading.query(task, question, answer, origin)


class RationalesConfig(FlanCotConfig):
    """Which rationales are read, and of which questions."""

    of_others: bool = False
    """Give every question the rationale of another one of its file, before its own right answer:
    the style of an explanation without its content."""


@stage(version=1, writes=Recorded, plan=lambda config, folder: sum_estimates([folder]))
def read_rationales(
    ctx: Context, config: RationalesConfig, *, folder: Artifact
) -> Iterator[Recorded]:
    """Read the human rationales as recorded answers: the reasons first, then the answer.

    Rationales of others are those half a file away; a file of one question has none.
    """
    for _, group in groupby(_rows(folder.path, config.pattern), key=lambda row: row[0]):
        rows = list(group)
        shift = len(rows) // 2 if config.of_others else 0
        if config.of_others and not shift:
            ctx.drop(rows[0][2], "no_other")
            continue
        for (_, origin, question, answer, _), other in zip(
            rows, rows[shift:] + rows[:shift], strict=True
        ):
            yield Recorded(
                id=row_id(origin), query=question, response=f"{other[4]}\n{ANSWER_CUE} {answer}."
            )


def _rows(folder: Path, pattern: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield (task, origin, question, answer, rationale) of every line of every file."""
    for path in matching(folder, pattern):
        task = path.stem.removesuffix("_train")
        for number, line in lines(path):
            fields = [_unescape(field) for field in line.split("\t")]
            if len(fields) != 3 or not all(fields):
                raise InputError(
                    f"{path}: line {number} has {len(fields)} fields {fields!r:.80}; "
                    "a FLAN-CoT line is question, answer and rationale, parted by tabs"
                )
            yield task, f"{path.name}:{number}", fields[0], fields[1], fields[2]


def _unescape(field: str) -> str:
    """Restore line breaks, which the files write as a backslash and an n."""
    return field.strip().replace("\\n", "\n")
