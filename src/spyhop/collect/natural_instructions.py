"""Natural Instructions v2: a folder with one JSON file per task, as published."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from spyhop.collect.reading import Reading
from spyhop.schema import Config, InputError, Query
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact
from spyhop.store.files import field, json_file, matching

LINES_PER_INSTANCE = 7
"""Planning figure: lines of a published file for each of its instances."""


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
    """Read the instances of every task: definition and input, without the examples.

    The first of several right outputs is the target. The template is the task's category. Licences
    are the file's own.
    """
    reading = Reading(ctx, "niv2")
    for path in matching(folder.path, config.pattern):
        task = json_file(path)
        where = str(path)
        if _is_left_out(ctx, config, task, where):
            continue
        definition = " ".join(_texts(task, "Definition", where)).strip()
        category = "; ".join(_texts(task, "Categories", where))
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
                template=category,
                licence="" if licence == "Unknown" else licence,
            )


def _texts(task: object, key: str, where: str) -> list[str]:
    found: list[str] = field(task, key, where, list)
    for number in range(len(found)):
        field(task, f"{key}.{number}", where)
    return found


def _is_left_out(ctx: Context, config: NaturalInstructionsConfig, task: object, where: str) -> bool:
    spoken = [
        name for key in ("Input_language", "Output_language") for name in _texts(task, key, where)
    ]
    if config.languages and not set(spoken) <= set(config.languages):
        ctx.count("tasks_left_out/language")
        return True
    categories = _texts(task, "Categories", where)
    if any(fnmatchcase(c, p) for c in categories for p in config.skip_categories):
        ctx.count("tasks_left_out/category")
        return True
    return False
