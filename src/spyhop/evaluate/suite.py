"""Benchmarks by name or file: our own tables, lm-eval's YAML files, and lists of suites.

Published results of both papers on them are reference columns, never paired with a run.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from spyhop.evaluate.lm_eval import LmEvalSuite, read_lm_eval
from spyhop.evaluate.measure import user_turn
from spyhop.evaluate.task import Task
from spyhop.schema import Item, RecipeError
from spyhop.settings import read_toml, validated

FOLDER = Path(__file__).with_name("tasks")
STYLES, PUBLISHED = (Path(__file__).with_name(f"{name}.toml") for name in ("styles", "published"))
YAML = (".yaml", ".yml")
FORM = ":"
"""Between a benchmark's name, or file, and one of its `forms`."""

AnyTask = Task | LmEvalSuite
HEADING = ("task", "subject", "items", "options", "chance")
"""Columns of `figures`; the mean length of a prompt follows."""


def task_names() -> list[str]:
    """Return the names of the benchmarks and lists of benchmarks that ship with spyhop."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def is_file(suite: str) -> bool:
    """Whether a suite is given as a file."""
    return suite.partition(".toml")[1] != "" or suite.endswith(YAML)


def read_suite(suite: str) -> tuple[AnyTask, ...]:
    """Return the benchmarks of a name, such as `bbh`, `bbh:cot` or `orca`, or of a file."""
    if suite.endswith(YAML):
        return read_lm_eval(Path(suite))
    path, form = _place(suite)
    tables = read_toml(path)
    if "suites" in tables and not form:
        names = tables["suites"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RecipeError(f"{path}: suites = {names!r:.60}: write a list of names")
        places = (str(path.parent / name) if is_file(name) else name for name in names)
        return tuple(task for name in places for task in read_suite(name))
    forms = tables.pop("forms", {})
    if not isinstance(forms, dict):
        raise RecipeError(f"{path}: forms = {forms!r:.60}: write a table for each form")
    if form and form not in forms:
        known = ", ".join(forms) or "no other form"
        raise RecipeError(f"{path}: no form {form!r}; known: {known}")
    changes = forms.get(form, {})
    if not isinstance(changes, dict):
        raise RecipeError(f"{path}: forms.{form} = {changes!r:.60}: write a table")
    given = {"name": f"{path.stem}-{form}" if form else path.stem, "data": path.stem}
    styles = read_toml(STYLES)
    for table in (tables, changes):
        style = table.pop("style", None)
        if style is None:
            given |= table
        elif isinstance(style, str) and style in styles:
            given |= styles[style] | table
        else:
            raise RecipeError(f"{path}: style = {style!r:.60}: known are {', '.join(styles)}")
    return (validated(path, Task, given, "", {}),)


def file_of(suite: str, task: AnyTask) -> Path:
    """Return the file that describes one of the benchmarks of a suite."""
    path = Path(suite) if suite.endswith(YAML) else _place(suite)[0]
    if path.suffix in YAML or "suites" not in read_toml(path):
        return path
    return FOLDER / f"{task.name.partition('-')[0]}.toml"


def with_shots(task: AnyTask, number: int | None) -> AnyTask:
    """Return the benchmark with this number of worked examples; None keeps its own."""
    if number is None:
        return task
    if isinstance(task, Task):
        return task.model_copy(update={"shots": number})
    members = [each.model_copy(update={"num_fewshot": number}) for each in task.members]
    return task.model_copy(update={"members": tuple(members)})


def forms(suite: str) -> list[str]:
    """Return the names of the further forms of a benchmark of ours."""
    return [] if suite.endswith(YAML) else list(read_toml(_place(suite)[0]).get("forms", {}))


def _place(suite: str) -> tuple[Path, str]:
    """Return the file of a suite and the name of its form."""
    if is_file(suite):
        path, ending, form = suite.rpartition(".toml")
        return Path(path + ending), form.removeprefix(FORM)
    name, _, form = suite.partition(FORM)
    if name not in task_names():
        known = ", ".join(task_names())
        raise RecipeError(f"no benchmark {name!r}; known: {known}; or name a .toml or .yaml file")
    return FOLDER / f"{name}.toml", form


def figures(groups: Iterable[list[Item]], length: Callable[[str], int]) -> list[list[str]]:
    """Return the figures of each task, and of all tasks in the last row if there are several."""
    found = {group[0].task: group for group in groups if group}
    if len(found) > 1:
        found["all"] = [item for group in found.values() for item in group]
    rows = []
    for name, items in found.items():
        numbers = sorted({len(item.options) for item in items})
        topics = {item.topic for item in items} - {""}
        spread = "-".join(str(number) for number in dict.fromkeys([numbers[0], numbers[-1]]))
        chance = fmean(item.chance for item in items)
        mean = fmean(length(item.asked) for item in items)
        subject = f"{len(topics)} topics" if len(topics) > 1 else "".join(topics)
        choices = [spread, f"{chance:.1%}"] if numbers != [0] else ["", ""]
        rows.append([name, subject, f"{len(items):,}", *choices, f"{mean:.0f}"])
    return rows


def first_prompt(task: AnyTask, item: Item) -> Iterator[tuple[str, str]]:
    """Yield the parts of an item's prompt with their names, verbatim."""
    if task.system_message:
        yield "system message", task.system_message
    if item.contexts:
        pairs = zip(item.contexts, item.continuations, strict=True)
        yield "prompts | scored", "\n".join(f"{before} | {text}" for before, text in pairs)
        return
    yield "plain text" if task.form == "plain" else "user turn", user_turn(item, task)
    if task.form == "prefilled" and item.cue:
        yield "beginning of the response", item.cue.lstrip()
    if task.method == "likelihood":
        yield "scored", "\n".join(map(repr, item.continuations or item.options))
    yield "gold answer", " | ".join(item.golds or [item.target])


@cache
def published_tables() -> list[dict[str, Any]]:
    """Return the tables as the papers print them."""
    tables: list[dict[str, Any]] = read_toml(PUBLISHED)["tables"]
    return tables


def published(suite: str) -> list[dict[str, str]]:
    """Return the published results on a suite, a row for each model of a table.

    A row has the paper and its table (`source`), the model, its percent by task, where an average
    is the task `all`, and the protocol as far as the paper states it.
    """
    found = []
    for table in published_tables():
        rows = {"all": table["rows"][suite]} if suite in table["rows"] else {}  # a single row
        if table["suite"] == suite:
            rows = table["rows"] | ({"all": table["average"]} if "average" in table else {})
        for place, model in enumerate(table["columns"] if rows else ()):
            cells = {task: f"{values[place]:g}" for task, values in rows.items()}
            found.append(
                (f"{table['paper']}, {table['table']}", model, cells, table["notes"][model])
            )
    tasks = dict.fromkeys((task for _, _, cells, _ in found for task in cells), "")
    return [
        {"source": source, "model": model, **tasks, **cells, "protocol": note}
        for source, model, cells, note in found
    ]
