"""The collections of the Orca paper as published: FLAN-v2's CoT, Natural Instructions v2, T0."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from spyhop.collect.columns import Reading
from spyhop.models.replay import Recorded
from spyhop.schema import Config, InputError, NoConfig, Query
from spyhop.stage import Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, json_file, json_lines, lines, matching

ANSWER_CUE = "The answer is"
LINES_PER_INSTANCE = 7
"""Planning figure: lines of a published Natural Instructions file for each of its instances."""


class FlanCotConfig(Config):
    """Which files of the folder are read."""

    pattern: str = "*.tsv"
    licence: str = ""
    """Licence of the files, if it is known."""


@stage(version=2, writes=Query, plan=lambda config, folder: sum_estimates([folder]))
def read_flan_cot(ctx: Context, config: FlanCotConfig, *, folder: Artifact) -> Iterator[Query]:
    """Read the questions of TSV files; all of them are taken, as in the Orca paper (Table 3).

    The task is the file's name without `_train`. Repeated questions have ids of their own.
    """
    reading = Reading(ctx, "cot", config.licence)
    for task, origin, question, answer, _ in _cot_rows(folder.path, config.pattern):
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
    """Read the human rationales as recorded answers: the reasons first, then the answer."""
    for _, group in groupby(_cot_rows(folder.path, config.pattern), key=lambda row: row[0]):
        rows = list(group)
        shift = len(rows) // 2 if config.of_others else 0
        if config.of_others and not shift:
            ctx.drop(rows[0][2], "no_other")
            continue
        others = rows[shift:] + rows[:shift]
        for (_, origin, question, answer, _), other in zip(rows, others, strict=True):
            response = f"{other[4]}\n{ANSWER_CUE} {answer}."
            yield Recorded(id=row_id(origin), query=question, response=response)


@stage(version=1, writes=Recorded, plan=lambda config, queries: sum_estimates([queries]))
def record_targets(ctx: Context, config: NoConfig, *, queries: Artifact) -> Iterator[Recorded]:
    """Yield the gold answer of every query that has one; the others are dropped as `no_target`."""
    for row in queries.rows(Query):
        if row.target:
            yield Recorded(id=row_id(row.id), query=row.query, response=row.target)
        else:
            ctx.drop(row, "no_target")


def _cot_rows(folder: Path, pattern: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield (task, origin, question, answer, rationale) of every line of every file."""
    for path in matching(folder, pattern):
        task = path.stem.removesuffix("_train")
        for number, line in lines(path):  # the files write line breaks as a backslash and an n
            fields = [each.strip().replace("\\n", "\n") for each in line.split("\t")]
            if len(fields) != 3 or not all(fields):
                raise InputError(
                    f"{path}: line {number} has {len(fields)} fields {fields!r:.80}; "
                    "a FLAN-CoT line is question, answer and rationale, parted by tabs"
                )
            yield task, f"{path.name}:{number}", fields[0], fields[1], fields[2]


class NaturalInstructionsConfig(Config):
    """Which tasks are read, and how a definition and an input become a query."""

    pattern: str = "task*.json"
    form: str = "{definition}\n\n{input}"
    """Template of the query, with the task's `{definition}` and the instance's `{input}`."""
    languages: tuple[str, ...] = ("English",)
    """Tasks with input or output in any other language are skipped; empty keeps all."""
    skip_categories: tuple[str, ...] = ()
    """Patterns of task categories to skip, such as `Dialogue *`."""


@stage(
    version=1,
    writes=Query,
    plan=lambda config, folder: Estimate(
        rows=folder.rows // LINES_PER_INSTANCE,
        row_tokens=folder.row_tokens * LINES_PER_INSTANCE,
        parts=tuple(num // LINES_PER_INSTANCE for num in folder.parts),
    ),
)
def read_natural_instructions(
    ctx: Context, config: NaturalInstructionsConfig, *, folder: Artifact
) -> Iterator[Query]:
    """Read the instances of a file per task: definition and input, without the examples.

    The first of several right outputs is the target. The template is the task's category.
    """
    reading = Reading(ctx, "niv2")
    for path in matching(folder.path, config.pattern):
        task, where = json_file(path), str(path)
        spoken = {*_texts(task, "Input_language", where), *_texts(task, "Output_language", where)}
        if config.languages and not spoken <= set(config.languages):
            ctx.count("tasks_left_out/language")
            continue
        categories = _texts(task, "Categories", where)
        if any(fnmatchcase(c, pattern) for c in categories for pattern in config.skip_categories):
            ctx.count("tasks_left_out/category")
            continue
        definition = " ".join(_texts(task, "Definition", where)).strip()
        named = task.get("Instance License") or []
        licence = named if isinstance(named, str) else "; ".join(map(str, named))
        for number, instance in enumerate(field(task, "Instances", where, list), 1):
            at = f"{where}: instance {number}"
            outputs = field(instance, "output", at, (list, str))
            target = outputs if isinstance(outputs, str) else outputs[0] if outputs else None
            if not isinstance(target, str):
                raise InputError(f"{at}: 'output' holds no text: {outputs!r:.80}")
            text = config.form.replace("{definition}", definition)
            yield reading.query(
                path.stem,
                text.replace("{input}", field(instance, "input", at).strip()),
                target.strip(),
                f"{path.name}:{number}",
                template="; ".join(categories),
                licence="" if licence == "Unknown" else licence,
            )


def _texts(task: object, key: str, where: str) -> list[str]:
    num = len(field(task, key, where, list))
    return [field(task, f"{key}.{number}", where) for number in range(num)]


class T0Config(Config):
    """Which templates are read, and what their fields are called."""

    pattern: str = "*.jsonl"
    query: str = "prompt"
    target: str = "completion"
    end_mark: str = "<|endoftext|>"
    """Cut from the end of every target."""
    licence: str = ""


@stage(version=1, writes=Query, plan=lambda config, folder: sum_estimates([folder]))
def read_t0(ctx: Context, config: T0Config, *, folder: Artifact) -> Iterator[Query]:
    """Read prompts and completions; task and template are the file's name, as in FLAN-v2's T0.

    Counts: `empty_files`. Rows without a prompt are dropped as `no_query`.
    """
    reading = Reading(ctx, "t0", config.licence)
    for path in matching(folder.path, config.pattern):
        name, number = path.name.split(".")[0], 0
        for number, (where, row) in enumerate(json_lines(path), 1):
            query = reading.query(
                name,
                field(row, config.query, where).strip(),
                field(row, config.target, where).removesuffix(config.end_mark).strip(),
                f"{path.name}:{number}",
                template=name,
            )
            if query.query:
                yield query
            else:
                ctx.drop(query, "no_query")
        ctx.count("empty_files", int(number == 0))
