"""Read the items of a benchmark from its files, as its task says.

Items stay comparable with the publication: repeated items are kept, and so are gold answers that
are not among the options where the task says so (five of BIG-Bench-Hard and AGIEval). No response
can be right there; `target not in options` finds them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from spyhop.collect.columns import UnusedKeys
from spyhop.evaluate.lm_eval import LmEvalSuite
from spyhop.evaluate.lm_eval_items import lm_eval_items
from spyhop.evaluate.task import Task
from spyhop.evaluate.task_items import task_items
from spyhop.schema import Config, InputError, Item
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, row_id
from spyhop.text.sandbox import Sandbox

LEAK_WORDS = 8
"""Shorter questions may recur in worked examples by chance."""


class ItemsConfig(Config):
    """Which items of which benchmark are read."""

    task: Task | LmEvalSuite
    tasks: tuple[str, ...] | None = None
    """Names of tasks; default: all tasks of the benchmark."""
    limit: int | None = Field(None, gt=0)
    """At most this many items per task: a fixed random sample; a larger limit contains it."""


def plan_read_items(config: ItemsConfig, folder: Estimate) -> Estimate:
    """Return the published number of items, or the rows of the files; with a limit, at most."""
    task, rows = config.task, config.task.num_items or folder.rows
    if config.tasks is not None:
        num_tasks = len(config.tasks)
    elif isinstance(task, LmEvalSuite):
        num_tasks = len(task.members)
    else:
        num_tasks = (len(task.tasks) or len(folder.parts)) if task.files.count("*") == 1 else 1
    if config.limit is not None and num_tasks:  # 0: unknown before reading
        rows = min(rows, config.limit * num_tasks)
    return Estimate(rows=rows)


@stage(version=3, writes=Item, plan=plan_read_items)
def read_items(ctx: Context, config: ItemsConfig, *, folder: Artifact) -> Iterator[Item]:
    """Yield the items of a benchmark, task by task.

    Counts: `unused/<key>`, the rows with a key that the task does not read.
    """
    task, num_items = config.task, 0
    keys = task.columns_read() if isinstance(task, Task) else set()
    may_leak = isinstance(task, LmEvalSuite) or task.as_published
    unused = UnusedKeys(ctx, folder.path.name, keys)
    for found in items_of(task, folder.path, config.tasks, unused.add):
        num_items += len(found)
        for item in found:
            text, is_long = item.text, len(item.text.split()) >= LEAK_WORDS
            if is_long and item.question.count(text) > 1 and not may_leak:
                raise InputError(
                    f"{task.name} {item.task}: a question is among its own worked examples "
                    f"({text!r:.60}); take them from other rows"
                )
        kept = set(sorted(item.id for item in found)[: config.limit])
        yield from (item for item in found if item.id in kept)
    unused.report()
    if not num_items:
        raise InputError(f"{folder.path}: no items of {task.name}; the files have no rows")
    if config.tasks is None and task.num_items not in (0, num_items):
        raise InputError(
            f"{folder.path}: {num_items:,} items of {task.name}, published are {task.num_items:,}; "
            "fetch the complete files, or set `tasks`"
        )


def items_of(
    task: Task | LmEvalSuite,
    folder: Path,
    wanted: tuple[str, ...] | None = None,
    watch: Callable[[dict[str, Any]], object] = lambda row: None,
) -> Iterator[list[Item]]:
    """Yield the items of each task; `watch` is called with our own rows.

    An item's id is made from suite, task and text; that of its n-th repetition also from n.
    """
    with Sandbox() as sandbox:
        if isinstance(task, LmEvalSuite):
            groups = lm_eval_items(task, folder, wanted, sandbox)
        else:
            groups = task_items(task, folder, wanted, sandbox, watch)
        for group in groups:
            seen, found = Counter[str](), []
            for item in group:
                text = "".join([item.asked, *item.contexts])
                repeated = [str(seen[text])] if seen[text] else []
                seen[text] += 1
                name = row_id(item.suite, item.task, text, *repeated)
                found.append(item.model_copy(update={"id": name}))
            yield found
