"""Read the items of a benchmark from its files, as its task says.

Items stay comparable with the publication: repeated items are kept, and so are gold answers that
are not among the options where the task says so (five of BIG-Bench-Hard and AGIEval). No response
can be right there; `target not in options` finds them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from spyhop.collect.columns import UnusedKeys, read_options
from spyhop.evaluate.lm_eval import LmEvalSuite
from spyhop.evaluate.lm_eval_items import draw_shots, lm_eval_items
from spyhop.evaluate.task import Task
from spyhop.schema import Config, InputError, Item
from spyhop.stage import Context, Estimate, stage
from spyhop.store import Artifact, row_id
from spyhop.store.files import LINE, field, json_file, lines, matching
from spyhop.store.rows import read_rows, row_files
from spyhop.text.choices import labels, listed
from spyhop.text.sandbox import Sandbox
from spyhop.text.template import fill, names

LEAK_WORDS = 8
"""Shorter questions may recur in worked examples by chance."""
_COLUMN = re.compile(r"[A-Za-z_]\w*")
_GOLD = "gold answer"
"""Name of the expression of the gold answer among those of columns."""
_BETWEEN = "\n\n"
"""Text after each worked example."""
Row = tuple[str, dict[str, Any]]
Shown = tuple[Item, str]
"""An item without its worked examples, and how it is written as one."""


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


def task_items(
    task: Task,
    folder: Path,
    wanted: tuple[str, ...] | None,
    sandbox: Sandbox,
    watch: Callable[[dict[str, Any]], object],
) -> Iterator[list[Item]]:
    """Yield the items of each task, without ids; `watch` is called with each row."""
    for name, paths in _chosen(task, folder, wanted).items():
        rows = [row for path in paths for row in _rows(task, path)]
        for _, row in rows:
            watch(row)
        shown, items = _shown(task, name, rows, sandbox), list[Item]()
        pool, pool_shown = rows, shown
        if task.shots and task.shot_files:
            files = matching(folder, fill(task.shot_files, task=name))
            pool = [row for file in files for row in _rows(task, file)]
            pool_shown = _shown(task, name, pool, sandbox)
        inner, own = ([row for _, row in some] for some in (pool, rows))
        drawn = draw_shots(inner, own, task.shots, task.sampler, excludes=True)
        published = _few_shot(task, name, folder)
        for (item, _), places in zip(shown, drawn, strict=True):
            before = published + "".join(pool_shown[n][1] for n in places)
            contexts = [before + context for context in item.contexts]
            changes = {"question": before + item.question, "contexts": contexts}
            items.append(item.model_copy(update=changes))
        yield items


def _chosen(task: Task, folder: Path, wanted: tuple[str, ...] | None) -> dict[str, list[Path]]:
    """Return the files to read by the name of their task."""
    paths: dict[str, list[Path]] = {}
    start, star, end = task.files.rpartition("/")[2].partition("*")
    for path in row_files(folder, task.files):
        name = task.name  # or the text that a single `*` of the pattern stands for
        if task.files == "*":
            name = path.name.split(".")[0]
        elif star and "*" not in end and path.name.startswith(start) and path.name.endswith(end):
            name = path.name[len(start) : len(path.name) - len(end)].split(".")[0]
        paths.setdefault(name, []).append(path)
    known = list(task.tasks) or [name for name in paths if name not in task.exclude]
    if unknown := sorted(set(wanted or ()) - set(known)):
        raise InputError(f"{task.name}: no task {', '.join(unknown)}; known: {', '.join(known)}")
    chosen = [name for name in known if wanted is None or name in wanted]
    if missing := [name for name in chosen if name not in paths]:
        raise InputError(f"{folder}: no file of the task {missing[0]} ({task.files})")
    return {name: paths[name] for name in chosen}


def _rows(task: Task, path: Path) -> Iterator[Row]:
    if path.suffix == ".txt" or (path.suffix == ".tsv" and "text" in task.columns_read()):
        yield from ((f"{path}{LINE}{n}", {"text": line}) for n, line in lines(path) if line.strip())
        return
    if not task.rows:
        yield from read_rows(path)
        return
    for number, row in enumerate(field(json_file(path), task.rows, str(path), list), start=1):
        where = f"{path}: row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object, got {row!r:.80}")
        yield where, row


def _few_shot(task: Task, name: str, folder: Path) -> str:
    if not task.few_shot_file:
        return task.few_shot
    (path, *_) = matching(folder, fill(task.few_shot_file, task=name))
    text = "\n".join(line for _, line in lines(path))
    if (start := text.find(task.few_shot_after)) < 0:
        raise InputError(f"{path}: no {task.few_shot_after!r} before its worked examples")
    return f"{text[start + len(task.few_shot_after) :].strip()}{_BETWEEN}"


def _shown(task: Task, name: str, rows: list[Row], sandbox: Sandbox) -> list[Shown]:
    is_expression = task.gold and not _COLUMN.fullmatch(task.gold)
    expressions = {**task.columns, **({_GOLD: task.gold} if is_expression else {})}
    return [
        _one(task, name, row | made, where)
        for where, row, made in sandbox.values(expressions, rows)
    ]


def _one(task: Task, name: str, row: dict[str, Any], where: str) -> Shown:
    columns = _columns(task, name, row, where)
    own, texts = _options(task, name, columns, where)
    known = labels(len(texts))
    question = _filled(task.question, columns, where).strip()
    golds = _golds(task, columns, known, where)
    target = golds[0] if golds else _filled(task.target, columns, where).strip()
    if not question or not target:
        raise InputError(f"{where}: an empty question or answer")
    if texts and not golds:
        target = _label(target, own, texts)
    if texts and target not in known and not task.as_published:
        raise InputError(f"{where}: answer {target!r:.60} is not among {texts!r:.80}")
    columns |= {"stem": question, "target": target, "last": known[-1] if known else ""}
    pairs = [columns | {"label": a, "text": b} for a, b in zip(known, texts, strict=True)]
    columns["options"] = task.separator.join(_filled(task.option, pair, where) for pair in pairs)
    prompt = task.prompt if texts else task.open_prompt
    passage = _filled(task.passage, columns, where).strip()
    topics = (topic for topic, tasks in task.topics.items() if name in tasks)
    scored = pairs if task.continuation else []
    item = Item(
        id="", suite=task.name, task=name, text=question, options=known, target=target,
        question=_filled(prompt, columns, where) if prompt else question,
        golds=golds if len(golds) > 1 or task.metric in ("mc1", "mc2") else [],
        chance=len(golds or [target]) / len(known) if target in known else 0.0,
        cue=_filled(task.cue, columns, where) if texts else "",
        continuations=[_filled(task.continuation, pair, where) for pair in scored],
        contexts=[_filled(task.context, pair, where) for pair in pairs] if task.context else [],
        passage=row_id(task.name, passage) if passage else "",
        topic=_filled(task.topic, columns, where) or next(topics, ""),
    )  # fmt: skip
    if not task.shots or (item.options and item.target not in item.options):
        return item, ""
    if not item.continuations:
        return item, f"{item.asked}{_filled(task.shot_answer, columns, where)}{_BETWEEN}"
    place = item.options.index(item.target)
    asked = item.contexts[place] if item.contexts else item.asked
    return item, f"{asked}{item.continuations[place]}{_BETWEEN}"


def _golds(task: Task, columns: Mapping[str, Any], known: list[str], where: str) -> list[str]:
    """Return the labels, or texts, that `gold` gives."""
    if not task.gold:
        return []
    found = field(columns, _GOLD if _GOLD in columns else task.gold, where, object)
    values: list[Any] = found if isinstance(found, list) else [found]
    if not known:
        return [str(value) for value in values if str(value).strip()]
    for value in values:
        if not str(value).isdigit() or int(value) >= len(known):
            raise InputError(
                f"{where}: gold = {value!r:.60} is not the index of one of {len(known)} options"
            )
    return [known[int(value)] for value in values]


def _options(
    task: Task, name: str, columns: dict[str, Any], where: str
) -> tuple[list[str], list[str]]:
    """Return labels (the file's own if it has any) and texts of the options, if there are any."""
    if not isinstance(task.options, str):
        kinds = (str, int, float)
        texts = [str(field(columns, each, where, kinds)).strip() for each in task.options]
        return labels(len(texts)), texts
    value = columns.pop(task.options, None) or task.fixed_options.get(name)
    if not value:
        return [], []
    found = listed(value) if isinstance(value, list | tuple) else None
    own, texts = ([], found) if found is not None else read_options(value, where, task.options)
    if len(texts) == 1 and not task.as_published:
        raise InputError(f"{where}, column {task.options!r}: one option; two are needed")
    return own or labels(len(texts)), texts


def _columns(task: Task, name: str, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the columns of a row, with those that `split` makes of them."""
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
    for known in (options, own):
        for text in (target, bare):
            if text in known:
                return labels(len(options))[known.index(text)]
    return target
