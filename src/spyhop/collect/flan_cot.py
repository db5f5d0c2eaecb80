"""The chain-of-thought sets of FLAN-v2, as published: TSV files of question, answer, rationale."""

import re
from collections.abc import Iterator
from pathlib import Path

from spyhop.models.replay import Recorded
from spyhop.schema import Config, InputError, Query
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, row_id

ANSWER_CUE = "The answer is"
OPTIONS = re.compile(r"^options:", re.IGNORECASE | re.MULTILINE)


class FlanCotConfig(Config):
    """Which files of the folder are read."""

    pattern: str = "*.tsv"


def plan_flan_cot(config: FlanCotConfig, folder: Estimate) -> Estimate:
    """One row per line."""
    return Estimate(rows=folder.rows, row_tokens=folder.row_tokens)


@stage(version=1, writes=Query, plan=plan_flan_cot)
def flan_cot(ctx: Context, config: FlanCotConfig, *, folder: Artifact) -> Iterator[Query]:
    """Read the questions; all of them are taken, as in the Orca paper (Table 3).

    The task is the file's name without `_train`. A question is multiple choice when it lists
    options. Repeated questions are kept, each with an id of its own.

    Raises:
        InputError: Naming the file, the line and what is wrong with it.
    """
    seen: dict[str, int] = {}
    for task, origin, question, answer, _ in _lines(folder.path, config.pattern):
        base = row_id("cot", task, question, answer)
        seen[base] = seen.get(base, 0) + 1
        is_multiple_choice = OPTIONS.search(question) is not None
        ctx.count(f"task/{task}")
        ctx.count("multiple_choice", int(is_multiple_choice))
        yield Query(
            id=base if seen[base] == 1 else row_id(base, str(seen[base])),
            collection="cot",
            task=task,
            query=question,
            target=answer,
            multiple_choice=is_multiple_choice,
            origin=origin,
        )


@stage(version=1, writes=Recorded, plan=plan_flan_cot)
def flan_cot_rationales(
    ctx: Context, config: FlanCotConfig, *, folder: Artifact
) -> Iterator[Recorded]:
    """Read the human rationales as recorded answers: the reasons first, then the answer."""
    for _, origin, question, answer, rationale in _lines(folder.path, config.pattern):
        yield Recorded(
            id=row_id(origin), query=question, response=f"{rationale}\n{ANSWER_CUE} {answer}."
        )


def _lines(folder: Path, pattern: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield (task, origin, question, answer, rationale) of every line of every file."""
    found = sorted(folder.glob(pattern)) if folder.is_dir() else [folder]
    found = [path for path in found if not path.name.startswith(".")]
    paths = [path for path in found if path.is_file()]
    if not paths:
        raise InputError(f"{folder}: no file matches {pattern!r}")
    for path in paths:
        task = path.stem.removesuffix("_train")
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                fields = [_unescape(field) for field in _text(path, number, line).split("\t")]
                if len(fields) != 3 or not all(fields):
                    raise InputError(
                        f"{path}: line {number} has {len(fields)} fields {fields!r:.80}; "
                        "a FLAN-CoT line is question, answer and rationale, parted by tabs"
                    )
                yield task, f"{path.name}:{number}", fields[0], fields[1], fields[2]


def _text(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: line {number} is not UTF-8 (byte {error.start}: {error.reason})"
        ) from None


def _unescape(field: str) -> str:
    """Line breaks stand in the files as a backslash and an n."""
    return field.strip().replace("\\n", "\n")
