"""Read the items of a benchmark from its files, as its task says.

Items stay comparable with the publication: repeated items are kept, each with an id of its own,
and so are gold answers that are not among the options where the task says so (three of
BIG-Bench-Hard, titles cut at their commas; one in each SAT-English file of AGIEval, an option is
missing). No response can be right there; `target not in options` finds them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from spyhop.collect.columns import read_options
from spyhop.collect.reading import UnusedKeys
from spyhop.evaluate.task import Task
from spyhop.schema import Config, InputError, Item
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, row_id
from spyhop.store.files import field, json_file
from spyhop.store.rows import read_rows, row_files
from spyhop.text.options import labels, listed
from spyhop.text.template import fill, names


class ItemsConfig(Config):
    """Which items of which benchmark are read."""

    task: Task
    tasks: tuple[str, ...] | None = None
    """Names of tasks; default: all tasks of the benchmark."""
    limit: int | None = Field(None, gt=0)
    """At most this many items per task: a fixed random sample; a larger limit contains it."""


def plan_read_items(config: ItemsConfig, folder: Estimate) -> Estimate:
    """Return the published number of items, or the rows of the files."""
    rows = config.task.num_items or folder.rows
    if config.limit is not None and config.tasks is not None:
        rows = min(rows, config.limit * len(config.tasks))
    return Estimate(rows=rows)


@stage(version=2, writes=Item, plan=plan_read_items)
def read_items(ctx: Context, config: ItemsConfig, *, folder: Artifact) -> Iterator[Item]:
    """Yield the items of a benchmark, task by task.

    Counts: `unused/<key>`, the rows with a key that the task does not read.

    Raises:
        InputError: Naming the file, the row and the column that is wrong, or the missing task.
    """
    task, num_items = config.task, 0
    unused = UnusedKeys(ctx, folder.path.name, task.columns())
    for name, path in _chosen(task, folder.path, config.tasks).items():
        found = list(_identified(task, name, path, unused))
        num_items += len(found)
        kept = set(sorted(item.id for item in found)[: config.limit])
        yield from (item for item in found if item.id in kept)
    unused.report()
    if config.tasks is None and task.num_items not in (0, num_items):
        raise InputError(
            f"{folder.path}: {num_items:,} items of {task.name}, published are {task.num_items:,}; "
            "fetch the complete files, or set `tasks`"
        )


def _chosen(task: Task, folder: Path, wanted: tuple[str, ...] | None) -> dict[str, Path]:
    """Return the files to read by the name of their task."""
    paths = {path.name.split(".")[0]: path for path in row_files(folder, task.files)}
    known = list(task.tasks) or [name for name in paths if name not in task.exclude]
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise InputError(f"{task.name}: no task {', '.join(unknown)}; known: {', '.join(known)}")
    chosen = [name for name in known if wanted is None or name in wanted]
    if missing := [name for name in chosen if name not in paths]:
        raise InputError(f"{folder}: no file of the task {missing[0]} ({task.files})")
    return {name: paths[name] for name in chosen}


def _identified(task: Task, name: str, path: Path, unused: UnusedKeys) -> Iterator[Item]:
    """Give each item an id from suite, task and text; the n-th repetition also counts n in."""
    seen = Counter[str]()
    for where, row in _rows(task, path):
        item = _item(task, name, row, where)
        unused.add(row)
        repeated = [str(seen[item.asked])] if seen[item.asked] else []
        seen[item.asked] += 1
        yield item.model_copy(update={"id": row_id(task.name, name, item.asked, *repeated)})


def _rows(task: Task, path: Path) -> Iterator[tuple[str, Any]]:
    if not task.rows:
        yield from read_rows(path)
        return
    for number, row in enumerate(field(json_file(path), task.rows, str(path), list), start=1):
        yield f"{path}: row {number}", row


def _item(task: Task, name: str, row: object, where: str) -> Item:
    columns = _columns(task, name, row, where)
    own, options = _options(task, name, columns.pop(task.options, None), where)
    question = _filled(task.question, columns, where).strip()
    target = _filled(task.target, columns, where).strip()
    if not question or not target:
        raise InputError(f"{where}: an empty question or answer")
    prompt, cue, known = question, "", labels(len(options))
    if options:
        shown = [
            fill(task.option, label=label, text=text)
            for label, text in zip(known, options, strict=True)
        ]
        columns |= {"options": " ".join(shown), "last": known[-1]}
        prompt, cue = (_filled(text, columns, where) for text in (task.prompt, task.cue))
        target = _label(target, own, options)
        if target not in known and not task.as_published:
            raise InputError(f"{where}: answer {target!r:.60} is not among {options!r:.80}")
    return Item(
        id="",
        suite=task.name,
        task=name,
        question=f"{task.few_shot}{prompt}",
        text=question,
        options=known,
        target=target,
        chance=1 / len(known) if target in known else 0.0,
        cue=cue,
    )


def _options(task: Task, name: str, value: object, where: str) -> tuple[list[str], list[str]]:
    """Return labels (the file's own if it has any) and texts of the options, if there are any."""
    value = value or task.fixed_options.get(name)
    if not value:
        return [], []
    own: list[str] = []
    texts = listed(value) if isinstance(value, list | tuple) else None
    if texts is None:
        own, texts = read_options(value, where, task.options)
    if len(texts) == 1 and not task.as_published:
        raise InputError(f"{where}, column {task.options!r}: one option; two are needed")
    return own or labels(len(texts)), texts


def _columns(task: Task, name: str, row: object, where: str) -> dict[str, Any]:
    """Return the columns of a row, with those that `split` makes of them."""
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object, got {row!r:.80}")
    columns = dict.fromkeys(task.optional, "") | dict(row)
    for column, pattern in task.split.items():
        text = field(columns, column, where).strip()
        if name in task.fixed_options:
            columns |= dict.fromkeys(re.compile(pattern).groupindex, "") | {"question": text}
        elif found := re.fullmatch(pattern, text):
            columns |= found.groupdict()
        else:
            raise InputError(f"{where}, column {column!r}: not of the form {pattern!r}")
    return columns


def _filled(template: str, columns: Mapping[str, Any], where: str) -> str:
    """Return a template with its columns filled in; numbers are written out, null is empty."""
    kinds = (str, int, float, type(None))
    found = {name: field(columns, name, where, kinds) for name in names(template)}
    return fill(template, **{n: "" if v is None else str(v) for n, v in found.items()})


def _label(target: str, own: list[str], options: list[str]) -> str:
    """Return the label of a gold answer: a label of the file, in brackets too, or a text."""
    bare = target[1:-1] if target[:1] == "(" and target[-1:] == ")" else target
    for names_ in (options, own):
        if target in names_ or bare in names_:
            place = names_.index(target if target in names_ else bare)
            return labels(len(options))[place]
    return target
